"""The engine of a simulation: the scheduler and block pool of the product, in steps that its owner ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fllm import CacheChanges, GenerateRequest, SamplingParams
from fllm.batching import BatchLimits, Sampled
from fllm.batching.batch import Batch
from fllm.batching.block_pool import BlockPool
from fllm.batching.scheduler import Outcome, Scheduler


def new_request(index: int, prompt: list[int], output_length: int) -> GenerateRequest:
    """Return the request with this index, whose output has an exact length."""
    return GenerateRequest(str(index), prompt, SamplingParams(max_tokens=output_length, temperature=0))


class Engine:
    """The scheduler of one engine. Its owner decides when a step ends."""

    def __init__(
        self,
        limits: BatchLimits,
        *,
        kv_blocks: int,
        max_model_len: int,
        clock: Callable[[], float],
    ) -> None:
        self._pool = BlockPool(kv_blocks, limits.block_size)
        self._pool.record_changes()
        self._clock = clock
        self.scheduler = Scheduler(self._pool, limits, max_model_len=max_model_len, clock=clock)

    def add(self, index: int, request: GenerateRequest) -> None:
        """Queue a request."""
        self.scheduler.add(request, seed=index, arrival_time=self._clock())

    def begin(self) -> Batch | None:
        """Return the next batch, or ``None`` if there is nothing to do."""
        if not self.scheduler.busy:
            return None
        batch = self.scheduler.schedule()
        assert batch.rows, "without grammars and disks, there is always a row"
        return batch

    def end(
        self, batch: Batch, results: Sequence[Sampled]
    ) -> tuple[list[tuple[str, Outcome]], CacheChanges | None]:
        """Apply the results of a batch. Return the outcomes, and the changes of the prefix cache."""
        return self.scheduler.complete(batch, results), self._pool.take_changes()
