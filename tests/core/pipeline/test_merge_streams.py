from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from fllm.pipeline.merge_streams import merge_streams


class Source:
    """Yields numbered items and records whether it was closed."""

    def __init__(self, name: str, items: int, fails: bool = False) -> None:
        self.name, self.items, self.fails, self.closed = name, items, fails, False

    async def generate(self) -> AsyncGenerator[list[str]]:
        try:
            for i in range(self.items):
                await asyncio.sleep(0)
                yield [f"{self.name}{i}"]
            if self.fails:
                raise ValueError(self.name)
        finally:
            self.closed = True


@pytest.mark.parametrize("lengths", [[], [3], [2, 0, 5]])
def test_every_item_of_every_generator_is_yielded_once_and_in_order(lengths: list[int]) -> None:
    async def collect() -> list[str]:
        sources = [Source(chr(97 + i), length) for i, length in enumerate(lengths)]
        merged = merge_streams([source.generate() for source in sources])
        return [item async for items in merged for item in items]

    items = asyncio.run(collect())
    assert len(items) == sum(lengths)
    for i, length in enumerate(lengths):
        letter = chr(97 + i)
        assert [item for item in items if item[0] == letter] == [f"{letter}{j}" for j in range(length)]


def test_items_that_arrive_together_share_a_list() -> None:
    async def collect() -> list[list[str]]:
        sources = [Source(name, 2) for name in "abc"]
        return [sorted(items) async for items in merge_streams([source.generate() for source in sources])]

    assert asyncio.run(collect()) == [["a0", "b0", "c0"], ["a1", "b1", "c1"]]


@pytest.mark.parametrize("count", [1, 3])
def test_closing_the_stream_closes_all_generators(count: int) -> None:
    sources = [Source(str(i), 1000) for i in range(count)]

    async def take_one() -> None:
        merged = merge_streams([source.generate() for source in sources])
        async for _ in merged:
            break
        await merged.aclose()

    asyncio.run(take_one())
    assert all(source.closed for source in sources)


def test_an_error_in_one_closes_the_others_and_is_raised() -> None:
    sources = [Source("a", 1000), Source("b", 2, fails=True)]

    async def consume() -> None:
        async for _ in merge_streams([source.generate() for source in sources]):
            pass

    with pytest.raises(ValueError, match="b"):
        asyncio.run(consume())
    assert all(source.closed for source in sources)
