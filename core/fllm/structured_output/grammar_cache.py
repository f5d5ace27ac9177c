"""Grammars are compiled beside the event loop and the engine, each constraint once."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from fllm.constraints import Constraint
from fllm.errors import BackendError, BackendUnavailable, FllmError, RequestError, format_error
from fllm.structured_output.interfaces import CompiledGrammar, GrammarCompiler, GrammarMatcher
from fllm.structured_output.timeout_executor import Hangs, Strangers

T = TypeVar("T")

MAX_COUNT = 256
MAX_BYTES = 64 << 20
"""Of the grammars that are kept for requests to come."""
THREADS = 2
"""Constraints compiled at once."""
PATIENCE = 30.0
"""Seconds until a constraint is given up that waits for others to be compiled."""
COMPILE_SECONDS = 60.0
"""Until a compiler is said to hang; ours take half of it at most, to start their process."""
MATCHER_SECONDS = 5.0
"""Until the making of a matcher is; usually it takes microseconds."""
MAX_REFUSED = 64
REFUSAL_SECONDS = 60.0
"""A refusal holds for so long: it may have cost all of its time, and the next would cost it again."""


class Compilation:
    """Gives matchers; called on the event loop alone."""

    def __init__(
        self,
        compiler: GrammarCompiler,
        *,
        max_count: int = MAX_COUNT,
        max_bytes: int = MAX_BYTES,
        patience: float = PATIENCE,
        check: Callable[[GrammarMatcher], None] = lambda _: None,
        compile_seconds: float = COMPILE_SECONDS,
        matcher_seconds: float = MATCHER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._compiler = compiler
        self._patience = patience
        self._clock = clock
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._check = check
        self._compile_seconds = compile_seconds
        self._matcher_seconds = matcher_seconds
        self._compiling = Strangers(THREADS, "fllm-grammars")
        self._matching = Strangers(1, "fllm-matchers")
        self._kept: OrderedDict[Constraint, CompiledGrammar] = OrderedDict()
        self._bytes = 0
        self._refused: OrderedDict[Constraint, tuple[RequestError, float]] = OrderedDict()
        """With the time until which it is believed."""
        self._pending: dict[Constraint, asyncio.Future[CompiledGrammar]] = {}

    async def matcher(self, constraint: Constraint) -> GrammarMatcher:
        """For a new text.

        Raises `RequestError` where it can't be compiled, `BackendUnavailable` where others keep it waiting.
        """
        self._check_refused(constraint)
        if constraint in self._kept:
            self._kept.move_to_end(constraint)
            grammar = self._kept[constraint]
        else:
            grammar = await self._shared(constraint)
        return await _beside(self._matching, grammar.matcher, patience=self._matcher_seconds)

    def close(self) -> None:
        """Forget all."""
        for threads in (self._compiling, self._matching):
            threads.close()
        self._compiler.close()

    def _check_refused(self, constraint: Constraint) -> None:
        error, until = self._refused.get(constraint, (None, 0.0))
        if error is not None and self._clock() < until:
            raise RequestError(error.message, param=error.param, code=error.code)

    async def _shared(self, constraint: Constraint) -> CompiledGrammar:
        """Compile it, or wait for who does; whoever leaves first does not take it from the others."""
        if constraint not in self._pending:
            task = asyncio.ensure_future(self._compile(constraint))
            self._pending[constraint] = task
            task.add_done_callback(lambda task: self._compiled(constraint, task))
        return await asyncio.shield(self._pending[constraint])

    async def _compile(self, constraint: Constraint) -> CompiledGrammar:
        try:
            grammar = await _beside(
                self._compiling,
                lambda: self._compiler.compile(constraint),
                wait=self._patience,
                patience=self._compile_seconds,
            )
            seconds = self._matcher_seconds
            await _beside(self._compiling, lambda: self._check(grammar.matcher()), patience=seconds)
            return grammar
        except TimeoutError:
            raise BackendUnavailable("too many grammars are being compiled: try again later") from None

    def _compiled(self, constraint: Constraint, task: asyncio.Future[CompiledGrammar]) -> None:
        del self._pending[constraint]
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._keep(constraint, task.result())
        elif isinstance(error, RequestError):
            self._refuse(constraint, error)

    def _keep(self, constraint: Constraint, made: CompiledGrammar) -> None:
        self._kept[constraint] = made
        self._bytes += made.size
        while len(self._kept) > self._max_count or self._bytes > self._max_bytes:
            _, grammar = self._kept.popitem(last=False)
            self._bytes -= grammar.size

    def _refuse(self, constraint: Constraint, error: RequestError) -> None:
        self._refused[constraint] = (error, self._clock() + REFUSAL_SECONDS)
        self._refused.move_to_end(constraint)
        if len(self._refused) > MAX_REFUSED:
            self._refused.popitem(last=False)


async def _beside(
    threads: Strangers, work: Callable[[], T], *, wait: float | None = None, patience: float
) -> T:
    try:
        return await threads.do(work, wait=wait, patience=patience)
    except (FllmError, TimeoutError):
        raise
    except Hangs:
        raise BackendError(f"the grammar failed: it takes more than {patience:g} s") from None
    except Exception as error:
        raise BackendError(f"the grammar failed: {format_error(error)}") from error
