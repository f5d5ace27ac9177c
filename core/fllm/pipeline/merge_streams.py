"""Several asynchronous generators as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

from fllm.pipeline.output_queue import OutputQueue

T = TypeVar("T")


def merge_streams(generators: Sequence[AsyncGenerator[list[T]]]) -> AsyncGenerator[list[T]]:
    """Items of all generators as they come, together where they come together.

    Closing it, or an error in one, closes them all.
    """
    return generators[0] if len(generators) == 1 else _merged(generators)


async def _merged(generators: Sequence[AsyncGenerator[list[T]]]) -> AsyncGenerator[list[T]]:
    inbox: OutputQueue[list[T] | None] = OutputQueue()
    tasks = [asyncio.create_task(_pump(generator, inbox)) for generator in generators]
    left = len(generators)
    try:
        while left:
            arrived = await inbox.get()
            left -= arrived.count(None)
            if items := [item for items in arrived for item in items or ()]:
                yield items
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(generator: AsyncGenerator[list[T]], inbox: OutputQueue[list[T] | None]) -> None:
    """Fill the inbox; ``None`` comes last."""
    try:
        async with aclosing(generator):
            async for items in generator:
                inbox.put(items)
    except Exception as error:  # noqa: BLE001 (raised again by `merge_streams`, in its consumer's task)
        inbox.fail(error)
    else:
        inbox.put(None)
