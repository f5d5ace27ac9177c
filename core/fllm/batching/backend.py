"""The event loop's side of continuous batching: a `Backend` over any `ModelRunner`."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import cache, partial
from pathlib import Path
from threading import Thread
from typing import Any

from msgspec.structs import replace

from fllm.batching.engine_loop import EngineLoop
from fllm.batching.limits import BatchLimits
from fllm.batching.prompt_validation import check_request
from fllm.batching.reasoning_budget import ReasoningBudget
from fllm.batching.runner import ModelRunner, PromptImages, ReportsLoss, TakesImages
from fllm.batching.scheduler import Outcome
from fllm.batching.step_watchdog import StepWatchdog
from fllm.batching.token_filter import TokenFilter
from fllm.concurrency.timeout_executor import TaskTimeout, TooManyHung
from fllm.concurrency.turn_executor import Pieces, TurnExecutor
from fllm.config import BackendConfig, LoraAdapter
from fllm.drafter import DrafterFactory
from fllm.errors import (
    BackendLost,
    BackendUnavailable,
    ConfigError,
    FllmError,
    ModelNotFound,
    RequestError,
)
from fllm.interfaces import BackendContext
from fllm.pipeline.output_queue import OutputQueue
from fllm.structured_output.grammar_cache import GrammarCache
from fllm.structured_output.grammar_state import GrammarState, require_text
from fllm.structured_output.interfaces import GrammarContext, GrammarFactory, read_vocabulary
from fllm.tokenizer import Tokenizer
from fllm.values import (
    CacheChanges,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    ModelCard,
    PreparedImages,
    merge_outputs,
    stop_tokens,
)

log = logging.getLogger("fllm.batching")

SEED_BITS = 63


class BatchedBackend:
    """A `Backend` that batches sequences continuously on one `ModelRunner`, in a thread of its own.

    Commands to the engine thread travel in one queue. All outcomes of a step travel back in one call to the
    event loop, which puts each into the queue of its sequence. All state of this class belongs to the event
    loop.
    """

    def __init__(
        self,
        runner: ModelRunner,
        config: BackendConfig,
        context: BackendContext,
        *,
        limits: BatchLimits = BatchLimits(),  # noqa: B008  (frozen)
    ) -> None:
        self._observer = context.observer
        report_cache = None if context.observer is None else self._report_cache
        drafter = _drafter_factory(config, context)
        self._engine = EngineLoop(runner, config, limits, report_cache=report_cache, drafter=drafter)
        self._runner = runner
        self._image_turns = TurnExecutor(1, "images")
        self._watchdog = StepWatchdog(lambda: self._engine.step, config.engine_timeout)
        self._died: str | None = None
        """Why the engine died."""
        self._config = config
        self._applies_masks = runner.capabilities.applies_masks
        self._grammar_factory = _grammar_factory(runner, config, context)
        self._grammar_cache: GrammarCache | None = None
        self._progress = context.progress
        self._seeds = random.SystemRandom() if config.seed is None else random.Random(config.seed)
        self._queues: dict[str, OutputQueue[EngineOutput]] = {}
        """Output queue of each request in flight, by request id."""
        self._adapters = dict.fromkeys((0, *(adapter.id for adapter in config.lora_modules)), 0)
        """Number of requests in flight of each adapter, by its id; 0 is the model itself."""
        self._closed_adapters: set[int] = set()
        """Those that new requests can't use: they are being loaded, or unloaded after the last request."""
        self._card: ModelCard | None = None
        self._loop: asyncio.AbstractEventLoop
        self._thread: Thread | None = None
        self._closed = asyncio.Event()

    async def start(self) -> ModelCard:
        """Load the model in the engine thread and return its card. Raise what the runner raises."""
        loop = self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[ModelCard] = loop.create_future()
        self._thread = Thread(
            target=self._run, args=(loop.call_soon_threadsafe, ready), name="fllm-engine", daemon=True
        )
        self._thread.start()
        card = await ready
        self._watchdog.start()
        return card

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Yield the outputs of one sequence. If closed early, free it before the engine's next step."""
        arrival_time = time.monotonic()
        check_request(request, self._require_card())
        images = self._images(request)
        token_filter = await self._token_filter(request)
        grammar = await self._start_grammar(request)
        self._require_card()  # the engine may have stopped in the meantime
        self._require_adapter(request.adapter)
        queue = self._open_queue(request.request_id)
        self._adapters[request.adapter] += 1
        self._engine.submit(
            request,
            seed=self._seed(request),
            arrival_time=arrival_time,
            grammar=grammar,
            token_filter=token_filter,
            images=images,
        )
        finish_reason = None
        try:
            while finish_reason is None:
                output = merge_outputs(await queue.get())
                finish_reason = output.finish_reason
                yield output
        finally:
            del self._queues[request.request_id]
            if finish_reason is None:
                self._engine.abort(request.request_id)
            self._adapters[request.adapter] -= 1
            self._remove_unused(request.adapter)

    async def load_adapter(self, adapter: LoraAdapter) -> None:
        """Load an adapter: read it in a thread of its own, then hand it to the engine between two steps."""
        self._require_card()
        if not self._config.enable_lora:
            raise ConfigError("the engine was started without --enable-lora")
        if len(self._adapters) > self._config.max_cpu_loras:  # one of them is the model itself
            raise ConfigError(
                f"{self._config.max_cpu_loras} adapters are loaded (--max-cpu-loras): unload one first"
            )
        self._adapters[adapter.id] = 0  # counts at once, so that no others are loaded in its place
        self._closed_adapters.add(adapter.id)
        try:
            install = await asyncio.to_thread(self._engine.read_adapter, adapter)
            await self._call_in_engine(install)
            self._closed_adapters.remove(adapter.id)
        except BaseException:
            self._remove_unused(adapter.id)
            raise

    async def unload_adapter(self, adapter_id: int) -> None:
        """Unload an adapter once no request uses it."""
        self._require_adapter(adapter_id)
        self._closed_adapters.add(adapter_id)
        self._remove_unused(adapter_id)

    async def prepare_images(self, images: Sequence[bytes], client: str) -> PreparedImages:
        """Return the prepared images. They have a thread of their own, in which clients take turns.

        Raise `RequestError` if the runner takes none, or rejects one.
        """
        self._require_card()
        runner = self._image_runner()

        def work() -> Pieces[PreparedImages]:
            prepared = runner.prepare_images(images)
            yield 0
            return prepared

        try:
            return await self._image_turns.run(work(), client)
        except (TaskTimeout, TooManyHung):
            raise RequestError("it takes too long to prepare the images", param="messages") from None

    async def status(self) -> EngineStats:
        """Return the scheduler's gauges and totals.

        Raise `BackendLost` if the engine hangs or has died, `BackendUnavailable` if it does not run.
        """
        self._watchdog.check()
        self._require_card()
        if isinstance(self._runner, ReportsLoss):
            self._runner.check()
        grammars = self._grammar_cache
        if grammars is None:
            return self._engine.status()
        return replace(
            self._engine.status(),
            grammar_compilations=grammars.compilations,
            grammar_errors=grammars.errors,
            grammar_seconds=grammars.seconds,
        )

    async def stop(self) -> None:
        """End the engine thread before its next step. Requests in flight fail with `BackendUnavailable`."""
        self._watchdog.stop()
        if self._thread is not None:
            self._engine.end()
            await self._closed.wait()
        self._image_turns.close()

    def _run(self, call_in_loop: Callable[..., Any], ready: asyncio.Future[ModelCard]) -> None:
        """Run the engine, in its thread, which reaches the event loop only by ``call_in_loop``."""
        error: BaseException | None = None
        try:
            call_in_loop(self._on_loaded, self._engine.load(self._progress), ready)
            self._engine.run(partial(call_in_loop, self._deliver))
        except BaseException as caught:  # noqa: BLE001  (`_on_end` reports it)
            error = caught
        call_in_loop(self._on_end, error, ready)

    def _on_loaded(self, card: ModelCard, ready: asyncio.Future[ModelCard]) -> None:
        self._tokenizer = tokenizer = cache(partial(Tokenizer.load, Path(card.tokenizer)))
        if self._grammar_factory is not None:
            self._vocabulary = cache(lambda: read_vocabulary(card, tokenizer(), self._config.visible_tokens))
            context = GrammarContext(
                vocabulary=self._vocabulary,
                encode=lambda text: tokenizer().encode(text, add_special_tokens=False),
            )
            check = partial(require_text, bitmask_size=lambda: self._vocabulary().bitmask_size)
            self._grammar_cache = GrammarCache(self._grammar_factory(context), check=check)
            card = replace(card, grammar=self._config.grammar)
        self._card = card
        if not ready.done():
            ready.set_result(card)

    def _deliver(self, outcomes: list[tuple[str, Outcome]]) -> None:
        for request_id, outcome in outcomes:
            if queue := self._queues.get(request_id):
                if isinstance(outcome, FllmError):
                    queue.fail(outcome)
                else:
                    queue.put(outcome)

    def _report_cache(self, changes: CacheChanges) -> None:
        """Report changes of the prefix cache, in the engine thread."""
        assert self._observer is not None, "nobody else needs them"
        self._loop.call_soon_threadsafe(self._observer.on_cache_change, changes)

    def _on_end(self, error: BaseException | None, ready: asyncio.Future[ModelCard]) -> None:
        self._card = None
        self._closed.set()
        if self._grammar_cache is not None:
            self._grammar_cache.close()
        if error is not None and not ready.done():
            ready.set_exception(error)
        elif isinstance(error, BackendLost):
            log.error("the engine ends: %s", error.message)
            self._died = error.message
        elif error is not None:
            log.error("the engine died", exc_info=error)
            self._died = "the engine died"
        for queue in self._queues.values():
            queue.fail(BackendUnavailable(self._died or "the engine is stopping"))

    def _require_card(self) -> ModelCard:
        """Return the model card. Raise an error if the engine does not run."""
        if self._died:
            raise BackendLost(self._died)
        if self._card is None:
            raise BackendUnavailable("the engine is not running")
        return self._card

    def _require_adapter(self, adapter_id: int) -> None:
        if adapter_id not in self._adapters or adapter_id in self._closed_adapters:
            raise ModelNotFound("the adapter is not loaded, or no longer")

    def _remove_unused(self, adapter_id: int) -> None:
        """Free an adapter that is closed to new requests, if no other uses it."""
        if adapter_id in self._closed_adapters and not self._adapters[adapter_id]:
            self._closed_adapters.remove(adapter_id)
            del self._adapters[adapter_id]
            self._engine.remove_adapter(adapter_id)

    async def _call_in_engine(self, function: Callable[[], None]) -> None:
        """Call a function in the engine thread. Raise its error; `BackendUnavailable` if the engine ends."""
        called: asyncio.Future[Any] = asyncio.wrap_future(self._engine.call(function))
        closed: asyncio.Future[Any] = asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait([called, closed], return_when=asyncio.FIRST_COMPLETED)
            if not called.done():
                raise BackendUnavailable("the engine has ended")
            called.result()
        finally:
            closed.cancel()
            called.cancel()

    async def _start_grammar(self, request: GenerateRequest) -> GrammarState | None:
        if request.constraint is None or self._grammar_cache is None:
            return None
        matcher = await self._grammar_cache.matcher(request.constraint, client=request.client)
        sampling = request.sampling
        return GrammarState(
            matcher,
            self._vocabulary(),
            self._engine.mask_worker,
            client=request.client,
            forces=not (sampling.allowed_token_ids or sampling.bad_words_token_ids),
        )

    def _images(self, request: GenerateRequest) -> PromptImages | None:
        if not request.images:
            return None
        return self._image_runner().take_images(request.images, request.token_ids)

    def _image_runner(self) -> TakesImages:
        if not isinstance(self._runner, TakesImages):
            raise RequestError("the model accepts text only", param="messages")
        return self._runner

    async def _token_filter(self, request: GenerateRequest) -> TokenFilter | None:
        sampling, card = request.sampling, self._require_card()
        if (param := sampling.filter_param) is None:
            return None
        if not self._applies_masks:
            raise RequestError(
                f"`{param}` is not supported: this backend can't restrict which tokens are sampled",
                param=param,
                code="unsupported_parameter",
            )
        size, limit = card.runtime.get("vocab_size"), sampling.reasoning_limit
        stop_ids = stop_tokens(sampling, card.eos_token_ids)
        if size is not None and limit is None:
            return TokenFilter(sampling, size, stop_ids)
        tokenizer = await asyncio.to_thread(self._tokenizer)
        budget = None if limit is None else ReasoningBudget(limit, tokenizer)
        return TokenFilter(sampling, size or tokenizer.vocab_size, stop_ids, budget)

    def _open_queue(self, request_id: str) -> OutputQueue[EngineOutput]:
        if request_id in self._queues:
            raise RequestError(f"the request id {request_id!r} is in use")
        queue = self._queues[request_id] = OutputQueue()
        return queue

    def _seed(self, request: GenerateRequest) -> int:
        seed = request.sampling.seed
        return self._seeds.getrandbits(SEED_BITS) if seed is None else seed


def _grammar_factory(
    runner: ModelRunner, config: BackendConfig, context: BackendContext
) -> GrammarFactory | None:
    if config.grammar is None or not runner.capabilities.applies_masks:
        return None
    if context.load_grammar is None:
        raise ConfigError(
            f"--grammar-backend {config.grammar}: the backend has no `BackendContext.load_grammar`"
        )
    return context.load_grammar(config.grammar)


def _drafter_factory(config: BackendConfig, context: BackendContext) -> DrafterFactory | None:
    if config.speculative_config is None:
        return None
    if context.load_drafter is None:
        raise ConfigError("--speculative-config: the backend has no `BackendContext.load_drafter`")
    return context.load_drafter(config.speculative_config.method)
