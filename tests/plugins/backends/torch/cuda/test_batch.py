from __future__ import annotations

import numpy as np
import pytest
import torch

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch.cuda.batch import QUERIES, HostBatch, build_batch, packed_decode_size

BLOCK_SIZE = 4


def row(start: int, count: int, *blocks: int) -> Row:
    return Row(
        token_ids=list(range(start + count)), prompt_length=start + count, start=start, count=count,
        block_table=blocks, sampling=SamplingParams(max_tokens=1), seed=0, sample=True,
    )  # fmt: skip


def prepared(*rows: Row) -> HostBatch:
    ids = [token for own in rows for token in own.token_ids[own.start : own.start + own.count]]
    return build_batch(rows, np.array(ids, np.int32), BLOCK_SIZE)


def test_positions_and_slots_are_those_of_the_new_tokens() -> None:
    host = prepared(row(5, 1, 3, 7), row(2, 3, 9, 4))
    assert host.positions.tolist() == [5, 2, 3, 4]
    assert host.slots.tolist() == [7 * 4 + 1, 9 * 4 + 2, 9 * 4 + 3, 4 * 4]


def test_rows_of_one_token_come_first_and_know_where_it_lies() -> None:
    host = prepared(row(0, 6, 1, 2), row(9, 1, 3, 4, 5), row(3, 2, 6, 7), row(0, 1, 8))
    assert host.tokens.tolist() == [6, 9]
    assert host.lengths.tolist() == [10, 1]
    assert host.tables.tolist() == [[3, 4, 5], [8, 0, 0], [1, 2, 0], [6, 7, 0]]
    assert host.tiles.tolist() == [[2, 0, 0, 6], [3, 7, 3, 2]]


def test_a_long_chunk_is_cut_into_tiles() -> None:
    host = prepared(row(3, 2 * QUERIES + 1, *range(40)))
    assert host.tiles.tolist() == [
        [0, 0, 3, QUERIES],
        [0, QUERIES, 3 + QUERIES, QUERIES],
        [0, 2 * QUERIES, 3 + 2 * QUERIES, 1],
    ]


def test_blocks_that_are_not_reached_are_left_out() -> None:
    assert prepared(row(5, 1, 3, 7, 8, 9)).tables.tolist() == [[3, 7]]


def test_what_is_packed_is_what_is_viewed() -> None:
    host = prepared(row(0, 6, 1, 2), row(9, 1, 3, 4, 5))
    batch = host.view(host.pack(pinned=False))
    assert batch.width.tolist() == [3]
    for part in ("token_ids", "positions", "slots"):
        assert getattr(batch, part).tolist() == getattr(host, part).tolist()
    assert batch.decodes.tokens.tolist() == [6]
    assert batch.decodes.lengths.tolist() == [10]
    assert batch.tiles.tolist() == host.tiles.tolist()
    assert batch.tables[:6].tolist() == [3, 4, 5, 1, 2, 0]


def test_every_part_begins_at_sixteen_bytes() -> None:
    host = prepared(row(0, 6, 1, 2), row(9, 1, 3, 4, 5))
    batch = host.view(host.pack(pinned=False))
    parts = [part for part in (*batch, *batch.decodes) if isinstance(part, torch.Tensor)]
    assert {part.storage_offset() % 4 for part in parts} == {0}


def test_rows_that_fill_up_write_nowhere_and_see_nothing() -> None:
    host = prepared(row(5, 1, 3, 7)).padded_to(4)
    assert host.slots.tolist() == [29, -1, -1, -1]
    assert host.lengths.tolist() == [6, 0, 0, 0]
    assert host.tokens.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_a_full_batch_of_decodes_has_the_size_that_was_computed(rows: int) -> None:
    host = prepared(*(row(11, 1, 0, 1, 2) for _ in range(rows)))
    assert host.size == packed_decode_size(rows, blocks=3)
