"""Grammars are compiled beside the event loop and the engine, each constraint once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fllm.constraints import Constraint
from fllm.errors import BackendError, FllmError
from fllm.grammars import CompiledGrammar, GrammarCompiler, Matcher
from fllm.registry import describe

T = TypeVar("T")

MAX_COUNT = 256
MAX_BYTES = 64 << 20
"""Of the grammars that are kept for requests to come."""
THREADS = 2
"""Constraints compiled at once."""


class Compilation:
    """Gives matchers; called on the event loop alone."""

    def __init__(
        self, compiler: GrammarCompiler, *, max_count: int = MAX_COUNT, max_bytes: int = MAX_BYTES
    ) -> None:
        self._compiler = compiler
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(THREADS, "fllm-grammars")
        self._kept: OrderedDict[Constraint, CompiledGrammar] = OrderedDict()
        self._bytes = 0
        self._pending: dict[Constraint, asyncio.Future[CompiledGrammar]] = {}

    async def matcher(self, constraint: Constraint) -> Matcher:
        """For a new text; raises `RequestError` where the constraint can't be compiled."""
        if constraint in self._kept:
            self._kept.move_to_end(constraint)
            grammar = self._kept[constraint]
        else:
            grammar = await self._shared(constraint)
        return await self._beside(grammar.matcher)

    def close(self) -> None:
        """Forget all."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._compiler.close()

    async def _shared(self, constraint: Constraint) -> CompiledGrammar:
        """Compile it, or wait for who does; whoever leaves first does not take it from the others."""
        if constraint not in self._pending:
            task = asyncio.ensure_future(self._compile(constraint))
            self._pending[constraint] = task
            task.add_done_callback(lambda task: self._compiled(constraint, task))
        return await asyncio.shield(self._pending[constraint])

    async def _compile(self, constraint: Constraint) -> CompiledGrammar:
        return await self._beside(lambda: self._compiler.compile(constraint))

    def _compiled(self, constraint: Constraint, task: asyncio.Future[CompiledGrammar]) -> None:
        del self._pending[constraint]
        if task.cancelled() or task.exception() is not None:
            return
        self._kept[constraint] = task.result()
        self._bytes += task.result().size
        while len(self._kept) > self._max_count or self._bytes > self._max_bytes:
            _, grammar = self._kept.popitem(last=False)
            self._bytes -= grammar.size

    async def _beside(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except FllmError:
            raise
        except Exception as error:
            raise BackendError(f"the grammar failed: {describe(error)}") from error
