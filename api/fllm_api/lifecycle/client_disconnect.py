"""Cancel the work for a request when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from litestar.types import Receive

T = TypeVar("T")


class ClientDisconnected(Exception):
    """The client closed the connection before the response was complete: 499, which only the log shows."""

    def __init__(self) -> None:
        super().__init__("the client disconnected")


async def run_while_connected(receive: Receive, work: Coroutine[None, None, T]) -> T:
    """Run the work. If the client disconnects first, cancel it and raise `ClientDisconnected`.

    Cancelled work may still await while it cleans up. Litestar does not cancel a handler by itself, and it
    cancels a stream by a cancel scope, in which cleanup code cannot await.
    """
    working = asyncio.create_task(work)
    disconnected = asyncio.create_task(_wait_for_disconnect(receive))
    try:
        await asyncio.wait((working, disconnected), return_when=asyncio.FIRST_COMPLETED)
    finally:
        unfinished = not working.done()
        working.cancel()
        disconnected.cancel()
        await asyncio.gather(working, disconnected, return_exceptions=True)
    if unfinished:
        raise ClientDisconnected
    return working.result()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
