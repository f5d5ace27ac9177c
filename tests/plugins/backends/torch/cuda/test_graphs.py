from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch.cuda.batch import Batch, HostBatch, build_batch, packed_decode_size
from fllm_backends.torch.cuda.graphs import DecodeGraphs, Replay, graph_sizes
from fllm_backends.torch.cuda.warmup import warmup_batches


def decodes(*positions: int) -> HostBatch:
    rows = [
        Row(
            token_ids=[0] * (p + 1), prompt_length=1, start=p, count=1, block_table=[p, p + 1, p + 2],
            sampling=SamplingParams(max_tokens=1), seed=0, sample=True,
        )
        for p in positions
    ]  # fmt: skip
    return build_batch(rows, np.array(positions, np.int32), block_size=4)


class Recorder:
    """Like a device: what was recorded writes to the memory of its first result."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, function: Callable[[], Tensor]) -> Replay:
        self.recorded += 1
        result = function()

        def replay() -> Tensor:
            return result.copy_(function())

        return replay


def seen(batch: Batch) -> Tensor:
    """Token, slot, length, and the last block of the table: [rows, 4]."""
    width = int(batch.width)
    last = batch.tables[: len(batch.token_ids) * width].view(-1, width)[:, -1]
    return torch.stack([batch.token_ids, batch.slots, batch.decodes.lengths, last], 1)


def graphs(recorder: Recorder, largest: int = 8) -> DecodeGraphs:
    buffer = torch.zeros(packed_decode_size(largest, blocks=10), dtype=torch.int32)
    return DecodeGraphs(seen, recorder, buffer, largest)


@pytest.mark.parametrize(
    ("largest", "expected"),
    [(1, [1]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (40, [1, 2, 4, 8, 16, 32, 40])],
)
def test_sizes_end_with_the_largest(largest: int, expected: list[int]) -> None:
    assert graph_sizes(largest) == expected


def test_each_size_is_recorded_once_and_later_batches_are_replayed() -> None:
    recorder = Recorder()
    decode_graphs = graphs(recorder)
    assert decode_graphs.run(decodes(1, 2, 3)).tolist() == [[1, 5, 2, 1], [2, 10, 3, 2], [3, 15, 4, 3]]
    assert decode_graphs.run(decodes(7, 5, 6, 4))[:, 0].tolist() == [7, 5, 6, 4]
    assert decode_graphs.run(decodes(9, 8, 7)).tolist() == [[9, 45, 10, 11], [8, 40, 9, 10], [7, 35, 8, 0]]
    assert recorder.recorded == 1
    decode_graphs.run(decodes(1))
    assert recorder.recorded == 2


def test_wider_tables_than_at_the_recording_are_read() -> None:
    decode_graphs = graphs(Recorder())
    decode_graphs.run(decodes(0))
    assert decode_graphs.run(decodes(9))[0, 3] == 11


def test_chunks_and_more_rows_than_the_largest_size_are_not_taken() -> None:
    decode_graphs = graphs(Recorder(), largest=2)
    assert decode_graphs.can_run(decodes(1, 2))
    assert not decode_graphs.can_run(decodes(1, 2, 3))
    chunk = Row(
        token_ids=[1, 2], prompt_length=2, start=0, count=2, block_table=[0],
        sampling=SamplingParams(max_tokens=1), seed=0, sample=True,
    )  # fmt: skip
    assert not decode_graphs.can_run(build_batch([chunk], np.array([1, 2], np.int32), block_size=4))


def test_after_the_warmup_every_size_is_recorded() -> None:
    recorder = Recorder()
    decode_graphs = graphs(recorder, largest=20)
    *batches, prompt = (
        build_batch(rows, np.zeros(sum(row.count for row in rows), np.int32), block_size=4)
        for rows in warmup_batches(20)
    )
    assert not decode_graphs.can_run(prompt)
    for batch in batches:
        decode_graphs.run(batch)
    assert recorder.recorded == len(graph_sizes(20)) == 6
    decode_graphs.run(decodes(*range(10)))
    assert recorder.recorded == 6
