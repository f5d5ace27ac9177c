"""The engine's side of the door: one thread, which hears orders between two steps."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

from msgspec.structs import replace

from fllm.batching.block_pool import BlockPool
from fllm.batching.limits import BatchLimits, context_length
from fllm.batching.ngram_drafter import NgramDrafter
from fllm.batching.runner import ModelRunner
from fllm.batching.scheduler import Outcome, Scheduler
from fllm.config import BackendConfig
from fllm.errors import BackendError, ConfigError, format_error
from fllm.structured_output.grammar_state import Guide
from fllm.values import EngineStats, GenerateRequest, ModelCard, Progress

log = logging.getLogger("fllm.batching")

MOST_FAILURES = 5
"""Batches that fail without one between them that does not: a device that has broken stays broken."""


class EngineLoop:
    """`load`, then `run`, both in the engine thread. The other methods may be called from any."""

    _scheduler: Scheduler
    """From `load` on."""

    def __init__(self, runner: ModelRunner, config: BackendConfig, limits: BatchLimits) -> None:
        self._runner = runner
        self._config = config
        self._limits = limits.under(config)
        if config.speculative_config and not getattr(runner, "verifies_drafts", False):
            raise ConfigError("--speculative-config: this backend can't verify drafts; leave it out")
        self._orders: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._failures = 0
        self.step: int | None = None
        """The number of the step that is under way; ``None`` between two."""

    def load(self, progress: Callable[[Progress], None]) -> ModelCard:
        """Load the model, allocate its KV cache, and write on its card what the two allow."""
        config, limits, speculation = self._config, self._limits, self._config.speculative_config
        card = self._runner.load(progress)
        blocks = self._runner.allocate(limits.block_size)
        length = context_length(card, config, blocks * limits.block_size)
        pool = BlockPool(blocks, limits.block_size, retain=config.enable_prefix_caching)
        self._scheduler = Scheduler(
            pool,
            limits,
            max_model_len=length,
            eos_token_ids=card.eos_token_ids,
            drafter=None if speculation is None else partial(NgramDrafter, speculation),
        )
        figures = {
            "num_speculative_tokens": speculation.num_speculative_tokens if speculation else 0,
            "kv_cache_blocks": blocks,
            "block_size": limits.block_size,
            "max_num_seqs": limits.max_num_seqs,
            "max_num_batched_tokens": limits.max_num_batched_tokens,
            "enable_prefix_caching": config.enable_prefix_caching,
        }
        return replace(card, max_model_len=length, runtime={**card.runtime, **figures})

    def run(self, deliver: Callable[[list[tuple[str, Outcome]]], None]) -> None:
        """Step while there is work, sleep while there is none; deliver the outcomes of each step together."""
        try:
            for number in itertools.count():
                if not self._obey():
                    return
                self.step = number
                outcomes = self._step()
                self.step = None
                if outcomes:
                    deliver(outcomes)
                if self._failures == MOST_FAILURES:
                    raise BackendError(f"{MOST_FAILURES} batches failed, one after the other")
        finally:
            self._runner.close()

    def submit(
        self, prompt: GenerateRequest, *, seed: int, arrived: float, guide: Guide | None = None
    ) -> None:
        """Queue a prompt, of which outcomes will be delivered until it ends."""
        self._orders.put(partial(self._scheduler.add, prompt, seed=seed, arrived=arrived, guide=guide))

    def abort(self, request_id: str) -> None:
        """Free a sequence before the next step; nothing happens if it is over already."""
        self._orders.put(partial(self._scheduler.abort, request_id))

    def end(self) -> None:
        """Let `run` return before the next step."""
        self._orders.put(None)

    def status(self) -> EngineStats:
        """The scheduler's gauges and totals."""
        return self._scheduler.status()

    def _obey(self) -> bool:
        """Follow all orders, waiting for one if there is nothing else to do; False if one is to end."""
        while True:
            try:
                order = self._orders.get(block=not self._scheduler.busy)
            except Empty:
                return True
            if order is None:
                return False
            order()

    def _step(self) -> list[tuple[str, Outcome]]:
        """Execute one batch. If that fails its sequences are lost, and the engine goes on."""
        batch = self._scheduler.schedule()
        assert batch.rows, "whoever is busy has something to compute"
        try:
            outcomes = [*self._scheduler.complete(batch, self._runner.execute(batch.rows))]
            self._failures = 0
            return outcomes
        except Exception as error:
            self._failures += 1
            ids = self._scheduler.discard(batch)
            log.exception("a batch failed, and with it %s", ", ".join(ids))
            reason = f"the engine failed on a batch of {len(ids)}: {format_error(error)}"
            return [(request_id, BackendError(reason)) for request_id in ids]
