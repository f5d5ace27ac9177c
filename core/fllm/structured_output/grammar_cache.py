"""A cache of compiled grammars; each constraint is compiled once, outside the event loop and the engine."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from fllm.concurrency.timeout_executor import TaskTimeout, TimeoutExecutor
from fllm.constraints import Constraint
from fllm.containment import mapped
from fllm.errors import BackendError, BackendUnavailable, FllmError, RequestError, format_error
from fllm.structured_output.interfaces import CompiledGrammar, GrammarCompiler, GrammarMatcher

T = TypeVar("T")

MAX_COUNT = 256
"""Maximum number of grammars in the cache."""
MAX_BYTES = 64 << 20
"""Maximum total size of the grammars in the cache."""
COMPILE_THREADS = 2
"""Number of constraints that are compiled at once."""
QUEUE_TIMEOUT = 30.0
"""Seconds that a constraint may wait for others to be compiled."""
COMPILE_TIMEOUT = 60.0
"""Seconds until a compiler is considered hung; our own take at most half of it, to start their process."""
MATCHER_TIMEOUT = 5.0
"""Seconds that creating a matcher may take; it usually takes microseconds."""
MAX_REJECTED = 64
"""Maximum number of rejected constraints in the cache."""
REJECTION_SECONDS = 60.0
"""Seconds for which a constraint stays rejected: it may have used up its time, and would do so again."""


class GrammarCache:
    """Returns matchers for constraints. Call it only on the event loop."""

    def __init__(
        self,
        compiler: GrammarCompiler,
        *,
        max_count: int = MAX_COUNT,
        max_bytes: int = MAX_BYTES,
        queue_timeout: float = QUEUE_TIMEOUT,
        check: Callable[[GrammarMatcher], None] = lambda _: None,
        compile_timeout: float = COMPILE_TIMEOUT,
        matcher_timeout: float = MATCHER_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._compiler = compiler
        self._queue_timeout = queue_timeout
        self._clock = clock
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._check = check
        self._compile_timeout = compile_timeout
        self._matcher_timeout = matcher_timeout
        self._compile_executor = TimeoutExecutor(COMPILE_THREADS, "fllm-grammars")
        self._matcher_executor = TimeoutExecutor(1, "fllm-matchers")
        self._grammars: OrderedDict[Constraint, CompiledGrammar] = OrderedDict()
        """Least recently used first."""
        self._bytes = 0
        self._rejected: OrderedDict[Constraint, tuple[RequestError, float]] = OrderedDict()
        """Errors of rejected constraints, and the times at which they expire."""
        self._pending: dict[Constraint, asyncio.Future[CompiledGrammar]] = {}

    async def matcher(self, constraint: Constraint) -> GrammarMatcher:
        """Return a new matcher for the constraint, which is compiled if it is not in the cache.

        Raise `RequestError` if it can't be compiled, `BackendUnavailable` if it waits for others too long,
        and `BackendError` if the grammar plugin fails or takes too long.
        """
        self._check_rejected(constraint)
        if constraint in self._grammars:
            self._grammars.move_to_end(constraint)
            grammar = self._grammars[constraint]
        else:
            grammar = await self._compile_once(constraint)
        return await _run(self._matcher_executor, grammar.matcher, time_limit=self._matcher_timeout)

    def close(self) -> None:
        """Close the compiler and let the threads end."""
        for executor in (self._compile_executor, self._matcher_executor):
            executor.close()
        self._compiler.close()

    def _check_rejected(self, constraint: Constraint) -> None:
        error, expires_at = self._rejected.get(constraint, (None, 0.0))
        if error is not None and self._clock() < expires_at:
            raise RequestError(error.message, param=error.param, code=error.code)

    async def _compile_once(self, constraint: Constraint) -> CompiledGrammar:
        """Compile the constraint, or wait for the pending compilation, which no cancelled request cancels."""
        if constraint not in self._pending:
            task = asyncio.ensure_future(self._compile(constraint))
            self._pending[constraint] = task
            task.add_done_callback(lambda task: self._on_compiled(constraint, task))
        return await asyncio.shield(self._pending[constraint])

    async def _compile(self, constraint: Constraint) -> CompiledGrammar:
        try:
            grammar = await _run(
                self._compile_executor,
                lambda: self._compiler.compile(constraint),
                queue_timeout=self._queue_timeout,
                time_limit=self._compile_timeout,
            )
            await _run(
                self._compile_executor,
                lambda: self._check(grammar.matcher()),
                time_limit=self._matcher_timeout,
            )
            return grammar
        except TimeoutError:
            raise BackendUnavailable("too many grammars are being compiled: try again later") from None

    def _on_compiled(self, constraint: Constraint, task: asyncio.Future[CompiledGrammar]) -> None:
        del self._pending[constraint]
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._store(constraint, task.result())
        elif isinstance(error, RequestError):
            self._store_rejected(constraint, error)

    def _store(self, constraint: Constraint, grammar: CompiledGrammar) -> None:
        self._grammars[constraint] = grammar
        self._bytes += grammar.size
        while len(self._grammars) > self._max_count or self._bytes > self._max_bytes:
            _, evicted = self._grammars.popitem(last=False)
            self._bytes -= evicted.size

    def _store_rejected(self, constraint: Constraint, error: RequestError) -> None:
        self._rejected[constraint] = (error, self._clock() + REJECTION_SECONDS)
        self._rejected.move_to_end(constraint)
        if len(self._rejected) > MAX_REJECTED:
            self._rejected.popitem(last=False)


async def _run(
    executor: TimeoutExecutor,
    function: Callable[[], T],
    *,
    queue_timeout: float | None = None,
    time_limit: float,
) -> T:
    """Run a grammar plugin's code, and raise `BackendError` if it fails or takes too long."""
    try:
        with mapped(_grammar_failed, passing=(FllmError, TimeoutError, TaskTimeout)):
            return await executor.run(function, queue_timeout=queue_timeout, time_limit=time_limit)
    except TaskTimeout:
        raise BackendError(f"the grammar failed: it takes more than {time_limit:g} s") from None


def _grammar_failed(error: BaseException) -> BackendError:
    return BackendError(f"the grammar failed: {format_error(error)}")
