"""A `PoolingBackend` over any `PoolingRunner`. The event loop schedules; one thread computes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import TypeVar

from fllm.batching.engine_loop import MAX_CONSECUTIVE_FAILURES
from fllm.batching.pooling_queue import Item, PendingRequest, PoolingQueue
from fllm.batching.pooling_runner import PoolingRunner
from fllm.batching.step_watchdog import StepWatchdog
from fllm.concurrency.timeout_executor import TimeoutExecutor
from fllm.config import BackendConfig
from fllm.errors import (
    BackendError,
    BackendLost,
    BackendUnavailable,
    ContextTooLong,
    FllmError,
    RequestError,
    format_error,
)
from fllm.interfaces import BackendContext
from fllm.values import (
    EngineOutput,
    EngineStats,
    GenerateRequest,
    ModelCard,
    PoolingInput,
    PoolingOutput,
    PoolingRequest,
)

T = TypeVar("T")
log = logging.getLogger("fllm.batching")

NO_TIME_LIMIT = 1e7
"""Seconds that a call in the thread may take. The watchdog reports a step that hangs, and loading is none."""
FLOAT_BYTES = 4


class BatchedPoolingBackend:
    """A backend that pools the inputs of all requests in batches. All state belongs to the event loop."""

    def __init__(self, runner: PoolingRunner, config: BackendConfig, context: BackendContext) -> None:
        self._runner = runner
        self._progress = context.progress
        self._thread = TimeoutExecutor("fllm-engine")
        self._step: int | None = None
        self._steps = 0
        self._running = 0
        self._failures = 0
        """Batches that failed in a row."""
        self._watchdog = StepWatchdog(lambda: self._step, config.engine_timeout)
        self._card: ModelCard | None = None
        self._queue: PoolingQueue
        self._added = asyncio.Event()
        self._pending: dict[PendingRequest, asyncio.Future[PoolingOutput]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> ModelCard:
        """Load the model and return its card. Raise what the runner raises."""
        card = await self._in_thread(partial(self._runner.load, self._progress))
        assert card.pooling is not None, "the runner pools"
        self._queue = PoolingQueue(card.runtime["max_num_batched_tokens"])
        self._card = card
        self._task = asyncio.create_task(self._run())
        self._watchdog.start()
        return card

    async def pool(self, request: PoolingRequest) -> PoolingOutput:
        """Return one vector for each input. If the call is cancelled, what is not computed yet is removed."""
        check_pooling_request(request, self._require_card())
        pending = PendingRequest(request, time.monotonic())
        result: asyncio.Future[PoolingOutput] = asyncio.get_running_loop().create_future()
        self._pending[pending] = result
        self._queue.add(pending)
        self._added.set()
        try:
            return await result
        finally:
            del self._pending[pending]
            if not pending.cancelled:
                self._queue.cancel(pending)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:  # noqa: ARG002
        """Raise `RequestError`: the model does not generate."""
        for _ in range(0):
            yield EngineOutput()
        raise RequestError("this model pools its input; it does not generate text", param="model")

    async def status(self) -> EngineStats:
        """Return the numbers of inputs. Raise `BackendLost` if the engine hangs or only fails."""
        self._watchdog.check()
        if self._failures >= MAX_CONSECUTIVE_FAILURES:
            raise BackendLost(f"{self._failures} batches failed in a row")
        self._require_card()
        return EngineStats(running=self._running, waiting=self._queue.inputs, steps=self._steps)

    async def stop(self) -> None:
        """End after the current step. Requests in flight fail with `BackendUnavailable`."""
        self._watchdog.stop()
        self._card = None
        if self._task is not None:
            self._task.cancel()
        for result in self._pending.values():
            if not result.done():
                result.set_exception(BackendUnavailable("the engine is stopping"))
        await self._in_thread(self._runner.close)
        self._thread.close()

    async def _run(self) -> None:
        while True:
            await self._added.wait()
            self._added.clear()
            while batches := self._queue.next_round():
                self._running = sum(map(len, batches))
                for batch in batches:
                    await self._compute([item for item in batch if not item.pending.cancelled])
                    self._running -= len(batch)

    async def _compute(self, items: Sequence[Item]) -> None:
        """Compute one batch. If it fails, its requests fail, and the engine goes on."""
        if not items:
            return
        now = time.monotonic()
        for item in items:
            if item.pending.queue_time is None:
                item.pending.queue_time = now - item.pending.arrival_time
        self._steps += 1
        self._step = self._steps
        try:
            vectors = await self._in_thread(partial(self._runner.pool, [item.row for item in items]))
        except Exception as error:
            self._failures += 1
            log.exception("a batch of %d failed", len(items))
            failure = BackendError(f"the engine failed on a batch of {len(items)}: {format_error(error)}")
            for item in items:
                self._fail(item.pending, failure)
        else:
            self._failures = 0
            for item, vector in zip(items, vectors, strict=True):
                item.pending.add(item.index, vector)
                self._finish(item.pending, len(vector) // FLOAT_BYTES)
        finally:
            self._step = None

    def _finish(self, pending: PendingRequest, size: int) -> None:
        result = self._pending.get(pending)
        if pending.complete and result is not None and not result.done():
            result.set_result(
                PoolingOutput(size=size, values=pending.values(), queue_time=pending.queue_time or 0.0)
            )

    def _fail(self, pending: PendingRequest, error: FllmError) -> None:
        self._queue.cancel(pending)
        result = self._pending.get(pending)
        if result is not None and not result.done():
            result.set_exception(error)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        """Run a function in the engine's thread: always the same one, for which torch keeps its threads."""
        return await self._thread.run(function, time_limit=NO_TIME_LIMIT)

    def _require_card(self) -> ModelCard:
        if self._card is None:
            raise BackendUnavailable("the engine is not running")
        return self._card


def check_pooling_request(request: PoolingRequest, card: ModelCard) -> None:
    """Raise `RequestError` if the model cannot process the request."""
    if not request.inputs:
        raise RequestError("there is no input", param="input")
    for index, each in enumerate(request.inputs):
        _check_input(each, card, f"input[{index}]" if len(request.inputs) > 1 else "input")
    size = card.pooling.size if card.pooling is not None else 0
    if request.dimensions is not None and not 1 <= request.dimensions <= size:
        raise RequestError(f"`dimensions` must be 1 to {size}", param="dimensions")


def _check_input(given: PoolingInput, card: ModelCard, param: str) -> None:
    if not given.token_ids:
        raise RequestError(f"`{param}` has no tokens", param=param)
    if len(given.token_ids) > card.max_model_len:
        raise ContextTooLong.for_prompt(
            card.max_model_len, f"the input has {len(given.token_ids)} tokens", param=param
        )
    lowest, highest = min(given.token_ids), max(given.token_ids)
    size = card.runtime["vocab_size"]
    if lowest < 0 or highest >= size:
        wrong = lowest if lowest < 0 else highest
        raise RequestError(
            f"`{param}`: token id {wrong} does not exist; ids are 0 to {size - 1}", param=param
        )
