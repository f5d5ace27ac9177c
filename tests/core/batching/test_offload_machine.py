"""Sequences with tiers in RAM and on disk have the same outputs, whatever is evicted, restored or lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from support.offload_runner import OffloadRunner

from fllm.batching.batch import Batch
from fllm.batching.kv_offload import Fetch, KVOffload
from fllm.batching.kv_offload.disk_tier import _Read
from fllm.batching.kv_offload.ram_tier import ENTRY_BYTES, RamTier
from fllm.values import GenerateRequest, SamplingParams

from .test_scheduler_machine import SchedulerMachine, samplings

REPEATED = [[1, 2] * 11, [1, 2] * 6, [1, 2] * 4 + [2] * 10, [2] * 9]


class InstantDisk:
    """A disk that is read at once, and forgets what it is asked to."""

    writable = has_room = True
    limit = 1 << 20

    def __init__(self) -> None:
        self.blocks: dict[bytes, bytes] = {}
        self.fetched = 0

    def __contains__(self, block_hash: bytes) -> bool:
        return block_hash in self.blocks

    def store(self, block_hash: bytes, data: bytes) -> bool:
        self.blocks[block_hash] = data
        return True

    def fetch(self, block_hashes: Iterable[bytes]) -> Fetch | None:
        reads = []
        for block_hash in block_hashes:
            reads.append(read := _Read(block_hash, ""))
            read.data, read.done = memoryview(self.blocks[block_hash]), True
        self.fetched += len(reads)
        return Fetch(reads, 0.0)


class OffloadMachine(SchedulerMachine):
    runner_type = OffloadRunner
    long_context_start = 12

    def make_offload(self) -> KVOffload | None:
        self.disk: Any = InstantDisk()
        kv_format = self.runner.kv_format()  # type: ignore[attr-defined]
        self.ram = RamTier(3 * (kv_format.block_bytes + ENTRY_BYTES))
        self.offload = KVOffload(self.runner, kv_format, self.ram, self.disk)  # type: ignore[arg-type]
        return self.offload

    def schedule(self) -> Batch:
        batch = self.scheduler.schedule()
        return batch if batch.rows else self.scheduler.schedule()

    @rule()
    def idle(self) -> None:
        self.offload.step_begins()
        while not self.offload.saved:
            self.offload.save_idle(self.pool)
        assert all(each in self.disk for each in self.pool.idle_hashes())

    @rule()
    def evict_all(self) -> None:
        self.pool.free(self.pool.allocate(self.pool.num_free))
        self.offload.save_evicted(self.pool)

    @rule(token_ids=st.sampled_from(REPEATED), sampling=samplings, salt=st.sampled_from(["", "a"]))
    def repeat(self, token_ids: list[int], sampling: SamplingParams, salt: str) -> None:
        self.count += 1
        request_id = str(self.count)
        ids = token_ids[: self.max_model_len - 1]
        request = GenerateRequest(request_id, ids, sampling, cache_salt=salt)
        self.scheduler.add(request, seed=sampling.seed or 0, arrival_time=0.0)
        self.requests[request_id], self.outputs[request_id] = request, []

    @rule(numbers=st.lists(st.integers(0, 30)))
    def lose(self, numbers: list[int]) -> None:
        hashes = list(self.disk.blocks)
        for number in numbers:
            if number < len(hashes):
                self.disk.blocks.pop(hashes[number], None)


OffloadMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOffload = OffloadMachine.TestCase
