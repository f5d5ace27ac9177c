"""Page tables are right however the rows of a batch change from step to step."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch.fused.formats import PANEL
from fllm_backends.torch.fused.pages import PagePlaces, PageTables

TABLES = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=6), min_size=1, max_size=4)


def row(table: list[int], start: int, count: int) -> Row:
    return Row(
        token_ids=[0] * (start + count),
        prompt_length=1,
        start=start,
        count=count,
        block_table=table,
        sampling=SamplingParams(max_tokens=1),
        seed=0,
        sample=True,
    )


@given(st.lists(TABLES, min_size=1, max_size=5), st.integers(1, 3))
def test_each_token_is_where_the_block_table_of_its_row_says(
    steps: list[list[list[int]]], pages: int
) -> None:
    tables, size = PageTables(pages), pages * PANEL
    for step in steps:
        rows = [row(table, index, len(table) * size - index) for index, table in enumerate(step)]
        places = PagePlaces.of(rows, tables)
        positions = [p for each in rows for p in range(each.start, each.start + each.count)]
        slots = [
            each.block_table[p // size] * size + p % size
            for each in rows
            for p in range(each.start, each.start + each.count)
        ]
        assert places.positions.tolist() == positions
        assert places.slots.tolist() == slots
        for index, table in enumerate(step):
            expected = np.array(table)[:, None] * pages + np.arange(pages)
            assert places.tables[index, : expected.size].tolist() == expected.ravel().tolist()


def test_a_table_whose_list_grows_or_changes_in_place_is_written_again() -> None:
    tables, blocks = PageTables(1), [4, 5]
    for change in (lambda: None, lambda: blocks.append(6), lambda: blocks.__setitem__(0, 9), blocks.pop):
        change()
        found = PagePlaces.of([row(blocks, 0, PANEL * len(blocks))], tables)
        assert found.slots[::PANEL].tolist() == [block * PANEL for block in blocks]
