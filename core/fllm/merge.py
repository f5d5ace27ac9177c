"""Several asynchronous generators as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


def merge(generators: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[T]:
    """Items of all generators as they come. Closing it, or an error in one, closes them all."""
    return generators[0] if len(generators) == 1 else _merged(generators)


async def _merged(generators: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[T]:
    queue: asyncio.Queue[T | _End] = asyncio.Queue()
    tasks = [asyncio.create_task(_pump(generator, queue)) for generator in generators]
    try:
        for _ in generators:
            while not isinstance(got := await queue.get(), _End):
                yield got
            if got.error is not None:
                raise got.error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _End:
    """One generator is exhausted, or raised."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


async def _pump(generator: AsyncGenerator[T], queue: asyncio.Queue[T | _End]) -> None:
    try:
        async with aclosing(generator):
            async for item in generator:
                queue.put_nowait(item)
    except Exception as error:  # noqa: BLE001 (raised again by `merge`, in its consumer's task)
        queue.put_nowait(_End(error))
    else:
        queue.put_nowait(_End())
