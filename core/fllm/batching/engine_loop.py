"""The engine thread: it steps the scheduler and the runner, and processes commands between two steps."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue

from msgspec.structs import replace

from fllm.batching.block_pool import BlockPool
from fllm.batching.drafting import Drafting, open_drafting
from fllm.batching.kv_offload import KVOffload, check_offload, open_offload
from fllm.batching.kv_offload.offload import IDLE_SECONDS
from fllm.batching.limits import BatchLimits, context_length
from fllm.batching.runner import AppliesAdapters, ModelRunner, MovesBlocks, PromptImages, check_runner
from fllm.batching.scheduler import Outcome, Scheduler
from fllm.batching.token_filter import TokenFilter
from fllm.config import BackendConfig, LoraAdapter
from fllm.drafter import DrafterFactory
from fllm.errors import BackendError, BackendLost, ConfigError, format_error
from fllm.interfaces import NO_ADAPTERS
from fllm.structured_output.grammar_state import GrammarState
from fllm.structured_output.mask_worker import MaskWorker
from fllm.values import CacheChanges, EngineStats, GenerateRequest, ModelCard, Progress

log = logging.getLogger("fllm.batching")

MAX_CONSECUTIVE_FAILURES = 5
"""Number of batches that may fail in a row: then the device is considered broken, and the engine ends."""


CHECK_SECONDS = 0.1
"""Seconds between two looks at slow grammars and disks while all sequences wait for them."""
IDLE_TURN_SECONDS = 0.02
"""Seconds between two turns of saving blocks while there is nothing else to do."""


class EngineLoop:
    """Runs the engine. `load` and then `run` are called in the engine thread, all other methods in any."""

    _scheduler: Scheduler
    """Set by `load`, like the pool."""
    _pool: BlockPool

    def __init__(
        self,
        runner: ModelRunner,
        config: BackendConfig,
        limits: BatchLimits,
        *,
        report_cache: Callable[[CacheChanges], None] | None = None,
        drafter: DrafterFactory | None = None,
    ) -> None:
        check_runner(runner)
        self._runner = runner
        self._config = config
        self._limits = limits.with_config(config)
        if config.speculative_config and not runner.capabilities.verifies_drafts:
            raise ConfigError("--speculative-config: this backend can't verify drafts; leave it out")
        if config.enable_lora and not isinstance(runner, AppliesAdapters):
            raise ConfigError(f"--enable-lora, --lora-modules: {NO_ADAPTERS}")
        self._drafter = drafter
        """Creates the drafter of `BackendConfig.speculative_config`."""
        self._drafting: Drafting | None = None
        self._offloads = check_offload(config, runner)
        self._offload: KVOffload | None = None
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._report_cache = report_cache
        """Receives the changes of the prefix cache after each step."""
        self._failures = 0
        self._steps = 0
        self._stalled = False
        """Whether all sequences wait for their grammars, or for blocks from the disk."""
        self.mask_worker = MaskWorker(partial(self._commands.put, _wake))
        self.step: int | None = None
        """Number of the current step; ``None`` between two steps."""

    def load(self, progress: Callable[[Progress], None]) -> ModelCard:
        """Load the model and allocate its KV cache. Return the card with the limits that result from both."""
        config, limits, speculation = self._config, self._limits, self._config.speculative_config
        card = self._runner.load(progress)
        for adapter in config.lora_modules:
            self.read_adapter(adapter)()
        self._drafting = self._open_drafting(
            card, progress
        )  # before the KV cache gets the rest of the memory
        blocks = self._runner.allocate(limits.block_size)
        length = context_length(card, config, blocks * limits.block_size)
        caching = config.enable_prefix_caching and not card.recurrent
        self._pool = BlockPool(
            blocks, limits.block_size, enable_caching=caching, share_blocks=not card.recurrent
        )
        self._offload = self._open_offload(card)
        if self._report_cache is not None:
            self._pool.record_changes()
            if self._offload is not None:
                self._offload.record_changes()
        self._scheduler = Scheduler(
            self._pool,
            limits,
            max_model_len=length,
            long_context_start=card.long_context_start,
            eos_token_ids=card.eos_token_ids,
            drafting=self._drafting,
            recurrent=card.recurrent,
            offload=self._offload,
        )
        runtime = {
            "num_speculative_tokens": speculation.num_speculative_tokens if speculation else 0,
            "kv_cache_blocks": blocks,
            "block_size": limits.block_size,
            "max_num_seqs": limits.max_num_seqs,
            "max_num_batched_tokens": limits.max_num_batched_tokens,
            "enable_prefix_caching": caching,
        }
        runtime = {**card.runtime, **runtime}
        return replace(card, max_model_len=length, supports_cache_salt=True, resumes=True, runtime=runtime)

    def run(self, deliver: Callable[[list[tuple[str, Outcome]]], None]) -> None:
        """Step while there is work and sleep otherwise, until `end`. Deliver the outcomes of a step together.

        Raise `BackendError` after `MAX_CONSECUTIVE_FAILURES`, `BackendLost` if the runner does.
        """
        try:
            for number in itertools.count():
                if not self._process_commands():
                    return
                self.step = number
                outcomes = self._step()
                self.step = None
                self._steps = number + 1
                if self._report_cache is not None and (changes := self._cache_changes()):
                    self._report_cache(changes)
                if outcomes:
                    deliver(outcomes)
                if self._failures == MAX_CONSECUTIVE_FAILURES:
                    raise BackendError(f"{MAX_CONSECUTIVE_FAILURES} batches failed in a row")
        finally:
            try:
                if self._offload is not None:
                    self._offload.close(self._pool)
            finally:
                if self._drafting is not None:
                    self._drafting.close()
                self._runner.close()

    def submit(
        self,
        request: GenerateRequest,
        *,
        seed: int,
        arrival_time: float,
        grammar: GrammarState | None = None,
        token_filter: TokenFilter | None = None,
        images: PromptImages | None = None,
    ) -> None:
        """Queue a request. Its outcomes are delivered until it ends."""
        self._commands.put(
            partial(
                self._scheduler.add,
                request,
                seed=seed,
                arrival_time=arrival_time,
                grammar=grammar,
                token_filter=token_filter,
                images=images,
            )
        )

    def abort(self, request_id: str) -> None:
        """Free a sequence before the next step. Do nothing if it has already ended."""
        self._commands.put(partial(self._scheduler.abort, request_id))

    def read_adapter(self, adapter: LoraAdapter) -> Callable[[], None]:
        """Return `AppliesAdapters.read_adapter`."""
        assert isinstance(self._runner, AppliesAdapters), "the configuration was checked"
        return self._runner.read_adapter(adapter)

    def remove_adapter(self, adapter_id: int) -> None:
        """Free an adapter before the next step, in which no sequence has it."""
        assert isinstance(self._runner, AppliesAdapters), "it has read the adapter"
        self._commands.put(partial(self._runner.remove_adapter, adapter_id))

    def call(self, function: Callable[[], None]) -> Future[None]:
        """Call a function in the engine thread between two steps. Its error is that of the future."""
        future: Future[None] = Future()
        self._commands.put(partial(_resolve, future, function))
        return future

    def end(self) -> None:
        """Let `run` return before the next step."""
        self._commands.put(None)

    def status(self) -> EngineStats:
        """Return the scheduler's gauges and totals."""
        return replace(self._scheduler.status(), steps=self._steps)

    def _process_commands(self) -> bool:
        """Run all queued commands; wait for one if there is nothing to schedule. Return False after `end`.

        While all sequences wait for their grammars or blocks, do not wait for long. While there is nothing
        to do, save idle blocks.
        """
        timeout = IDLE_SECONDS
        while True:
            idle = not self._stalled and not self._scheduler.busy
            saves = idle and self._offload is not None and not self._offload.saved
            try:
                command = self._commands.get(
                    self._stalled or idle, CHECK_SECONDS if self._stalled else timeout if saves else None
                )
            except Empty:
                if not idle or self._offload is None:
                    return True
                self._offload.save_idle(self._pool)
                timeout = IDLE_TURN_SECONDS
                continue
            if command is None:
                return False
            command()
            self._stalled = False

    def _cache_changes(self) -> CacheChanges | None:
        """Return which blocks the prefix cache has gained and lost, those in RAM included."""
        changes = self._pool.take_changes()
        return changes if self._offload is None else self._offload.held_changes(changes, self._pool)

    def _open_drafting(self, card: ModelCard, progress: Callable[[Progress], None]) -> Drafting | None:
        if self._drafter is None or self._config.speculative_config is None:
            return None
        if card.recurrent:
            raise ConfigError(
                "--speculative-config: this model keeps a state that drafts can't be taken back from"
            )
        return open_drafting(self._drafter, self._config, card, self._limits, progress)

    def _open_offload(self, card: ModelCard) -> KVOffload | None:
        """Return the tiers below the prefix cache, if the options ask for them and the model has blocks."""
        if not self._offloads:
            return None
        if card.recurrent:
            log.warning("--kv-offload-memory and --kv-cache-dir are ignored: the model has a recurrent state")
            return None
        assert isinstance(self._runner, MovesBlocks), "the configuration was checked"
        return open_offload(self._config, self._runner, partial(self._commands.put, _wake))

    def _step(self) -> list[tuple[str, Outcome]]:
        """Execute one batch. If it fails, its sequences fail, and the engine goes on.

        Raise `BackendLost` if the runner does.
        """
        self.mask_worker.check()
        outcomes = self._scheduler.poll_grammars()
        batch = self._scheduler.schedule()
        self._stalled = not batch.rows and self._scheduler.busy
        if not batch.rows:
            return outcomes
        if self._offload is not None:
            self._offload.step_begins()
        try:
            outcomes += self._scheduler.complete(batch, self._runner.execute(batch.rows))
            self._failures = 0
            return outcomes
        except BackendLost:
            raise
        except Exception as error:
            self._failures += 1
            ids = self._scheduler.discard(batch)
            log.exception("a batch failed; requests: %s", ", ".join(ids))
            reason = f"the engine failed on a batch of {len(ids)}: {format_error(error)}"
            return outcomes + [(request_id, BackendError(reason)) for request_id in ids]


def _resolve(future: Future[None], function: Callable[[], None]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            function()
            future.set_result(None)
        except Exception as error:  # noqa: BLE001  (the caller gets it)
            future.set_exception(error)


def _wake() -> None:
    """Do nothing: the command only ends the engine's sleep."""
