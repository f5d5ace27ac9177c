"""The waiting queue of a real engine that runs one sequence: order, aborts and rejection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from support.http_server import Server
from support.paths import SUPPORT

from fllm.testing import Serve

QUEUE_PLUGIN = SUPPORT / "queue_plugin.py"
MAX_QUEUE = 24
DEADLINE = 20.0
"""Generous limit in seconds."""


@pytest.fixture(scope="module")
def narrow(serve: Serve) -> Server:
    keys = ("--api-key", "many", "--api-key", "one")
    limits = ("--max-num-seqs", "1", "--max-queue", f"{MAX_QUEUE}", "--max-model-len", "4096")
    return serve("--plugin", QUEUE_PLUGIN, *limits, *keys)


class Queue:
    """A server whose only slot is occupied by one endless stream."""

    def __init__(self, server: Server, http: httpx.AsyncClient) -> None:
        self._server = server
        self._http = http
        self._stream = AsyncExitStack()

    async def ask(self, key: str, **body: Any) -> httpx.Response:
        body = {"model": "m", "prompt": "Once", "max_tokens": 4, **body}
        return await self._http.post(f"{self._server.api}/completions", json=body, headers=bearer(key))

    async def occupy(self) -> None:
        body = {"model": "m", "prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "stream": True}
        stream = self._http.stream(
            "POST", f"{self._server.api}/completions", json=body, headers=bearer("many")
        )
        response = await self._stream.enter_async_context(stream)
        self._lines = (
            response.aiter_lines()
        )  # kept, since httpx closes the connection when it is garbage-collected
        await anext(self._lines)

    async def release(self) -> None:
        await self._stream.aclose()

    async def wait_for(self, waiting: int) -> None:
        """Return once this many sequences wait in the engine."""
        deadline = time.monotonic() + DEADLINE
        while (now := await self._waiting()) != waiting:
            assert time.monotonic() < deadline, f"{now} sequences are waiting"
            await asyncio.sleep(0.02)

    async def _waiting(self) -> int:
        response = await self._http.get(f"{self._server.url}/queue", headers=bearer("one"))
        waiting: int = response.json()["waiting"]
        return waiting


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def with_queue(server: Server, test: Callable[[Queue], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(timeout=DEADLINE, limits=limits) as http:
            queue = Queue(server, http)
            await queue.occupy()
            try:
                await test(queue)
            finally:
                await queue.release()

    asyncio.run(main())


def test_a_client_with_many_requests_does_not_starve_one_with_one(narrow: Server) -> None:
    async def test(queue: Queue) -> None:
        finished: list[str] = []

        async def ask(key: str) -> None:
            assert (await queue.ask(key)).status_code == 200
            finished.append(key)

        async with asyncio.TaskGroup() as group:
            for _ in range(MAX_QUEUE - 1):
                group.create_task(ask("many"))
            await queue.wait_for(MAX_QUEUE - 1)
            group.create_task(ask("one"))
            await queue.wait_for(MAX_QUEUE)
            await queue.release()
        assert finished.index("one") <= 2, finished

    with_queue(narrow, test)


def test_an_aborted_request_leaves_the_queue_at_once(narrow: Server) -> None:
    async def test(queue: Queue) -> None:
        for stream in (False, True):
            leaving = asyncio.create_task(queue.ask("one", stream=stream, n=3))
            await queue.wait_for(3)
            leaving.cancel()
            await queue.wait_for(0)

    with_queue(narrow, test)


def test_a_request_beyond_the_queue_limit_is_rejected_at_once_and_served_later(narrow: Server) -> None:
    async def test(queue: Queue) -> None:
        waiting = asyncio.create_task(queue.ask("many", n=MAX_QUEUE))
        await queue.wait_for(MAX_QUEUE)
        refused = await queue.ask("many")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["code"] == "server_busy"
        other = asyncio.create_task(queue.ask("one"))  # a client that has little has room beyond the limit
        await queue.wait_for(MAX_QUEUE + 1)
        await queue.release()
        assert (await other).status_code == (await waiting).status_code == 200
        assert (await queue.ask("one", seed=2**63 - 1, n=2)).status_code == 200

    with_queue(narrow, test)
