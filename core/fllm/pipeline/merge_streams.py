"""Merge several asynchronous generators into one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

from fllm.pipeline.output_queue import OutputQueue

T = TypeVar("T")


def merge_streams(generators: Sequence[AsyncGenerator[list[T]]]) -> AsyncGenerator[list[T]]:
    """Yield the items of all generators as they arrive; items that arrive together share one list.

    Closing the result, or an error in one generator, closes all generators.
    """
    return generators[0] if len(generators) == 1 else _merge(generators)


async def _merge(generators: Sequence[AsyncGenerator[list[T]]]) -> AsyncGenerator[list[T]]:
    queue: OutputQueue[list[T] | None] = OutputQueue()
    tasks = [asyncio.create_task(_pump(generator, queue)) for generator in generators]
    running = len(generators)
    try:
        while running:
            batch = await queue.get()
            running -= batch.count(None)
            if items := [item for part in batch for item in part or ()]:
                yield items
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(generator: AsyncGenerator[list[T]], queue: OutputQueue[list[T] | None]) -> None:
    """Put all items of a generator on the queue, then ``None``."""
    try:
        async with aclosing(generator):
            async for items in generator:
                queue.put(items)
    except Exception as error:  # noqa: BLE001 (raised again in the task that consumes the merged stream)
        queue.fail(error)
    else:
        queue.put(None)
