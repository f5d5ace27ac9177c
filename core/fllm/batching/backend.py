"""The event loop's side of the door: a backend over any model runner."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable
from functools import cache, partial
from threading import Thread
from typing import Any

from msgspec.structs import replace

from fllm.batching.engine_loop import EngineLoop
from fllm.batching.limits import BatchLimits
from fllm.batching.prompt_validation import check
from fllm.batching.runner import ModelRunner
from fllm.batching.scheduler import Outcome
from fllm.batching.step_watchdog import Pulse
from fllm.config import BackendConfig
from fllm.errors import BackendError, BackendLost, BackendUnavailable, RequestError
from fllm.interfaces import BackendContext
from fllm.pipeline.output_queue import OutputQueue
from fllm.plugins.loader import load_plugins
from fllm.structured_output.grammar_cache import Compilation
from fllm.structured_output.grammar_state import Guide, require_text
from fllm.structured_output.interfaces import GrammarContext, GrammarFactory, read_vocabulary
from fllm.structured_output.mask_worker import MaskThread
from fllm.values import EngineOutput, EngineStats, GenerateRequest, ModelCard, merge_outputs

log = logging.getLogger("fllm.batching")

SEED_BITS = 63


class BatchedBackend:
    """A `Backend` that batches sequences continuously on one `ModelRunner`, in a thread of its own.

    To the engine thread, orders travel in one queue. From it, all outcomes of a step travel in one call into
    the event loop, which puts each into its sequence's inbox. All state here belongs to the event loop.
    """

    def __init__(
        self,
        runner: ModelRunner,
        config: BackendConfig,
        context: BackendContext,
        *,
        limits: BatchLimits = BatchLimits(),  # noqa: B008  (frozen)
    ) -> None:
        self._engine = EngineLoop(runner, config, limits)
        self._pulse = Pulse(lambda: self._engine.step, config.engine_timeout)
        self._broken = False
        self._config = config
        self._grammar_factory = _grammar_factory(runner, config, context)
        self._grammars: Compilation | None = None
        self._masks = MaskThread()
        self._progress = context.progress
        self._seeds = random.SystemRandom() if config.seed is None else random.Random(config.seed)
        self._inboxes: dict[str, OutputQueue[EngineOutput]] = {}
        self._card: ModelCard | None = None
        self._thread: Thread | None = None
        self._closed = asyncio.Event()

    async def start(self) -> ModelCard:
        """Load the model in the engine thread; what the runner raises comes out as it is."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[ModelCard] = loop.create_future()
        self._thread = Thread(
            target=self._run, args=(loop.call_soon_threadsafe, ready), name="fllm-engine", daemon=True
        )
        self._thread.start()
        card = await ready
        self._pulse.start()
        return card

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Yield the steps of one sequence; closed early, free it before the engine's next step."""
        arrived = time.monotonic()
        check(request, self._require())
        guide = await self._guide(request)
        self._require()  # it may have stopped meanwhile
        inbox = self._open_inbox(request.request_id)
        self._engine.submit(request, seed=self._seed(request), arrived=arrived, guide=guide)
        finish = None
        try:
            while finish is None:
                step = merge_outputs(await inbox.get())
                finish = step.finish_reason
                yield step
        finally:
            del self._inboxes[request.request_id]
            if finish is None:
                self._engine.abort(request.request_id)

    async def status(self) -> EngineStats:
        """The scheduler's gauges and totals; raises `BackendUnavailable` once the engine thread is gone,
        `BackendLost` if it hangs, or has died."""
        self._pulse.check()
        self._require()
        return self._engine.status()

    async def stop(self) -> None:
        """End the engine thread before its next step; what is in flight ends with `BackendUnavailable`."""
        self._pulse.stop()
        if self._thread is not None:
            self._engine.end()
            await self._closed.wait()

    def _run(self, call: Callable[..., Any], ready: asyncio.Future[ModelCard]) -> None:
        """The engine thread; it reaches the event loop by ``call`` alone."""
        error: BaseException | None = None
        try:
            call(self._opened, self._engine.load(self._progress), ready)
            self._engine.run(partial(call, self._deliver))
        except BaseException as caught:  # noqa: BLE001  (whatever it is, `_ended` passes it on)
            error = caught
        call(self._ended, error, ready)

    def _opened(self, card: ModelCard, ready: asyncio.Future[ModelCard]) -> None:
        if self._grammar_factory is not None:
            self._vocabulary = cache(partial(read_vocabulary, card, self._config.visible_tokens))
            context = GrammarContext(vocabulary=self._vocabulary)
            check = partial(require_text, bitmask_size=lambda: self._vocabulary().bitmask_size)
            self._grammars = Compilation(self._grammar_factory(context), check=check)
            card = replace(card, grammar=self._config.grammar)
        self._card = card
        if not ready.done():
            ready.set_result(card)

    def _deliver(self, outcomes: list[tuple[str, Outcome]]) -> None:
        for request_id, outcome in outcomes:
            if inbox := self._inboxes.get(request_id):
                if isinstance(outcome, BackendError):
                    inbox.fail(outcome)
                else:
                    inbox.put(outcome)

    def _ended(self, error: BaseException | None, ready: asyncio.Future[ModelCard]) -> None:
        self._card = None
        self._closed.set()
        if self._grammars is not None:
            self._grammars.close()
        if error is not None and not ready.done():
            ready.set_exception(error)
        elif error is not None:
            log.error("the engine died", exc_info=error)
            self._broken = True
        for inbox in self._inboxes.values():
            inbox.fail(BackendUnavailable("the engine died" if error else "the engine is stopping"))

    def _require(self) -> ModelCard:
        if self._broken:
            raise BackendLost("the engine died")
        if self._card is None:
            raise BackendUnavailable("the engine is not running")
        return self._card

    async def _guide(self, prompt: GenerateRequest) -> Guide | None:
        if prompt.constraint is None or self._grammars is None:
            return None
        matcher = await self._grammars.matcher(prompt.constraint)
        return Guide(matcher, self._vocabulary(), self._masks)

    def _open_inbox(self, request_id: str) -> OutputQueue[EngineOutput]:
        if request_id in self._inboxes:
            raise RequestError(f"the request id {request_id!r} is in use")
        inbox = self._inboxes[request_id] = OutputQueue()
        return inbox

    def _seed(self, prompt: GenerateRequest) -> int:
        seed = prompt.sampling.seed
        return self._seeds.getrandbits(SEED_BITS) if seed is None else seed


def _grammar_factory(
    runner: ModelRunner, config: BackendConfig, context: BackendContext
) -> GrammarFactory | None:
    if config.grammar is None or not getattr(runner, "applies_masks", False):
        return None
    factory: GrammarFactory = load_plugins(context.plugins).grammars.load(config.grammar)
    return factory
