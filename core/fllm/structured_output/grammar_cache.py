"""A cache of compiled grammars; each constraint is compiled once, outside the event loop and the engine."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from fllm.concurrency.client_turns import ClientTurns, Turn, read_exception
from fllm.concurrency.cpu_time import thread_seconds
from fllm.concurrency.timeout_executor import TaskTimeout, TimeoutExecutor, TooManyHung
from fllm.constraints import Constraint
from fllm.containment import mapped
from fllm.errors import BackendError, BackendUnavailable, FllmError, RequestError, format_error
from fllm.structured_output.constraint_size import constraint_size
from fllm.structured_output.grammar_state import too_many_hang
from fllm.structured_output.interfaces import CompiledGrammar, GrammarCompiler, GrammarMatcher

T = TypeVar("T")

MAX_COUNT = 256
"""Maximum number of grammars in the cache."""
MAX_BYTES = 64 << 20
"""Maximum total size of the grammars in the cache."""
THREADS = 3
"""Number of constraints that are compiled at once, and of matchers that are created at once."""
HEAVY_THREADS = 1
"""Those of them for clients that used much time: they can't keep the others waiting."""
MAX_CHARACTERS = 128 * 1024
"""Maximum total length of the schemas, patterns and texts of a constraint."""
MAX_QUEUED_CHARACTERS = 64 * MAX_CHARACTERS
"""Maximum total length of the constraints of one client that wait."""
QUEUE_TIMEOUT = 30.0
"""Seconds that a constraint may wait for its client's turn."""
COMPILE_TIMEOUT = 60.0
"""Seconds until a compiler is considered hung; our own take at most half of it, to start their process."""
MATCHER_TIMEOUT = 5.0
"""Seconds that creating a matcher may take; it usually takes microseconds."""
MAX_REJECTED = 64
"""Maximum number of rejected constraints in the cache."""
REJECTION_SECONDS = 60.0
"""Seconds for which a constraint stays rejected: it may have used up its time, and would do so again."""


class _Compilation:
    """One compilation, and how many requests wait for its start."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.waiting = 0
        self.task: asyncio.Future[CompiledGrammar] | None = None


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
        self._executor = TimeoutExecutor("fllm-grammars")
        self.compilations = 0
        """Constraints that were compiled, or tried to."""
        self.errors = 0
        self.seconds = 0.0
        """Time of all compilations."""
        self._turns = ClientTurns(THREADS, HEAVY_THREADS)
        self._matcher_turns = ClientTurns(THREADS, HEAVY_THREADS)
        self._grammars: OrderedDict[Constraint, tuple[CompiledGrammar, str]] = OrderedDict()
        """Grammars, and the clients for which they were compiled. Least recently used first."""
        self._bytes = 0
        self._rejected: OrderedDict[Constraint, tuple[RequestError, float]] = OrderedDict()
        """Errors of rejected constraints, and the times at which they expire."""
        self._pending: dict[Constraint, _Compilation] = {}
        """Compilations that run, and those that somebody waits for."""
        self._queued: Counter[str] = Counter()
        """Total length of the constraints of each client that wait."""

    async def matcher(self, constraint: Constraint, *, client: str = "") -> GrammarMatcher:
        """Return a new matcher for the constraint, which is compiled if it is not in the cache.

        Clients that wait are served in turn, one compilation of each at a time. A caller that is cancelled
        leaves the queue. A compilation that has started ends by itself, and counts as its client's.

        Raise `RequestError` if it can't be compiled, `BackendUnavailable` if it waits for others too long,
        and `BackendError` if the grammar plugin fails or takes too long.
        """
        self._check_rejected(constraint)
        if constraint in self._grammars:
            self._grammars.move_to_end(constraint)
            grammar, _ = self._grammars[constraint]
        else:
            grammar = await self._compile_once(constraint, client)
        run = partial(_run, self._executor, client, grammar.matcher, self._matcher_timeout)
        return await self._matcher_turns.run(client, run)

    def close(self) -> None:
        """Close the compiler and let the threads end."""
        self._executor.close()
        self._compiler.close()

    def _check_rejected(self, constraint: Constraint) -> None:
        error, expires_at = self._rejected.get(constraint, (None, 0.0))
        if error is not None and self._clock() < expires_at:
            raise RequestError(error.message, param=error.param, code=error.code)

    async def _compile_once(self, constraint: Constraint, client: str) -> CompiledGrammar:
        """Return the grammar of a compilation that all requests for the constraint share."""
        size = constraint_size(constraint)
        if size > MAX_CHARACTERS:
            raise RequestError(f"the grammar has {size} characters; the maximum is {MAX_CHARACTERS}")
        compilation = self._pending.setdefault(constraint, _Compilation())
        if compilation.task is None:
            await self._wait_for_start(constraint, compilation, client, size)
        assert compilation.task is not None, "it has started"
        return await asyncio.shield(compilation.task)

    async def _wait_for_start(
        self, constraint: Constraint, compilation: _Compilation, client: str, size: int
    ) -> None:
        """Wait until the compilation starts, in the first turn of all clients that wait for it."""
        turn = asyncio.ensure_future(self._start_in_turn(constraint, compilation, client))
        compilation.waiting += 1
        self._queued[client] += size
        try:
            if self._queued[client] > MAX_QUEUED_CHARACTERS:
                raise BackendUnavailable("too many of your grammars wait to be compiled: try again later")
            async with asyncio.timeout(self._queue_timeout):
                await compilation.started.wait()
        except TimeoutError:
            raise BackendUnavailable(
                f"the grammar waited for {self._queue_timeout:g} s to be compiled: try again later"
            ) from None
        finally:
            turn.cancel()
            self._queued[client] -= size
            if not self._queued[client]:
                del self._queued[client]
            compilation.waiting -= 1
            if compilation.task is None and not compilation.waiting:
                del self._pending[constraint]

    async def _start_in_turn(self, constraint: Constraint, compilation: _Compilation, client: str) -> None:
        turn = await self._turns.acquire(client)
        if compilation.task is None:
            compilation.task = asyncio.ensure_future(self._compile(constraint, client, turn))
            compilation.task.add_done_callback(read_exception)
            compilation.started.set()
        else:
            turn.end()

    async def _compile(self, constraint: Constraint, client: str, turn: Turn) -> CompiledGrammar:
        """Compile the constraint in a turn that has begun."""
        run = partial(_run, self._executor, client)
        self.compilations += 1
        started_at = time.monotonic()
        try:
            grammar = await run(lambda: self._compiler.compile(constraint), self._compile_timeout, turn)
            await run(lambda: self._check(grammar.matcher()), self._matcher_timeout, turn)
        except Exception as error:
            self.errors += 1
            if isinstance(error, RequestError):
                self._store_rejected(constraint, error)
            raise
        finally:
            self.seconds += time.monotonic() - started_at
            turn.end()
            del self._pending[constraint]
        self._store(constraint, grammar, client)
        return grammar

    def _store(self, constraint: Constraint, grammar: CompiledGrammar, client: str) -> None:
        self._grammars[constraint] = grammar, client
        self._bytes += grammar.size
        while self._bytes > self._max_bytes:
            self._evict(lambda grammar: grammar.size)
        while len(self._grammars) > self._max_count:
            self._evict(lambda _: 1)

    def _evict(self, weight: Callable[[CompiledGrammar], int]) -> None:
        """Remove the least recently used grammar of the client that occupies most of the cache."""
        weights: Counter[str] = Counter()
        for grammar, client in self._grammars.values():
            weights[client] += weight(grammar)
        largest = max(weights, key=weights.__getitem__)
        constraint = next(key for key, (_, client) in self._grammars.items() if client == largest)
        grammar, _ = self._grammars.pop(constraint)
        self._bytes -= grammar.size

    def _store_rejected(self, constraint: Constraint, error: RequestError) -> None:
        self._rejected[constraint] = (error, self._clock() + REJECTION_SECONDS)
        self._rejected.move_to_end(constraint)
        if len(self._rejected) > MAX_REJECTED:
            self._rejected.popitem(last=False)


async def _run(
    executor: TimeoutExecutor, client: str, function: Callable[[], T], time_limit: float, turn: Turn
) -> T:
    """Run a grammar plugin's code, and raise `BackendError` if it fails or takes too long.

    Raise `BackendUnavailable` if too many threads hang already.
    """

    def measured() -> T:
        start = thread_seconds()
        try:
            return function()
        finally:
            turn.cpu_seconds += thread_seconds() - start

    try:
        with mapped(
            _grammar_failed,
            passing=(FllmError, TaskTimeout, TooManyHung, asyncio.CancelledError),
            base_exceptions=True,  # a Rust extension panics
        ):
            return await executor.run(measured, client=client, time_limit=time_limit)
    except TaskTimeout:
        turn.cpu_seconds += time_limit
        raise BackendError(f"the grammar failed: it takes more than {time_limit:g} s") from None
    except TooManyHung:
        raise too_many_hang() from None


def _grammar_failed(error: BaseException) -> BackendError:
    return BackendError(f"the grammar failed: {format_error(error)}")
