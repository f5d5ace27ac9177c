"""A real engine that runs one sequence: who waits, who is next, who is refused."""

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
"""Seconds; generous."""


@pytest.fixture(scope="module")
def narrow(serve: Serve) -> Server:
    keys = ("--api-key", "many", "--api-key", "one")
    limits = ("--max-num-seqs", "1", "--max-queue", f"{MAX_QUEUE}", "--max-model-len", "4096")
    return serve("--plugin", QUEUE_PLUGIN, *limits, *keys)


class Queue:
    """A server of which one endless stream holds the only place."""

    def __init__(self, server: Server, http: httpx.AsyncClient) -> None:
        self._server = server
        self._http = http
        self._holding = AsyncExitStack()

    async def ask(self, key: str, **body: Any) -> httpx.Response:
        body = {"model": "m", "prompt": "Once", "max_tokens": 4, **body}
        return await self._http.post(f"{self._server.api}/completions", json=body, headers=bearer(key))

    async def hold(self) -> None:
        body = {"model": "m", "prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "stream": True}
        stream = self._http.stream(
            "POST", f"{self._server.api}/completions", json=body, headers=bearer("many")
        )
        answer = await self._holding.enter_async_context(stream)
        self._lines = answer.aiter_lines()  # kept, since httpx hangs up when it is forgotten
        await anext(self._lines)

    async def let_go(self) -> None:
        await self._holding.aclose()

    async def waits_for(self, waiting: int) -> None:
        """Return once so many wait in the engine."""
        deadline = time.monotonic() + DEADLINE
        while (now := await self._waiting()) != waiting:
            assert time.monotonic() < deadline, f"{now} wait"
            await asyncio.sleep(0.02)

    async def _waiting(self) -> int:
        answer = await self._http.get(f"{self._server.url}/queue", headers=bearer("one"))
        waiting: int = answer.json()["waiting"]
        return waiting


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def with_queue(server: Server, test: Callable[[Queue], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(timeout=DEADLINE, limits=limits) as http:
            queue = Queue(server, http)
            await queue.hold()
            try:
                await test(queue)
            finally:
                await queue.let_go()

    asyncio.run(main())


def test_a_client_with_many_requests_does_not_starve_one_with_one(narrow: Server) -> None:
    async def test(queue: Queue) -> None:
        over: list[str] = []

        async def ask(key: str) -> None:
            assert (await queue.ask(key)).status_code == 200
            over.append(key)

        async with asyncio.TaskGroup() as group:
            for _ in range(MAX_QUEUE - 1):
                group.create_task(ask("many"))
            await queue.waits_for(MAX_QUEUE - 1)
            group.create_task(ask("one"))
            await queue.waits_for(MAX_QUEUE)
            await queue.let_go()
        assert over.index("one") <= 2, over

    with_queue(narrow, test)


def test_whoever_leaves_while_waiting_is_dropped_at_once(narrow: Server) -> None:
    async def test(queue: Queue) -> None:
        for stream in (False, True):
            leaving = asyncio.create_task(queue.ask("one", stream=stream, n=3))
            await queue.waits_for(3)
            leaving.cancel()
            await queue.waits_for(0)

    with_queue(narrow, test)


def test_beyond_the_queue_a_request_is_refused_at_once_and_served_later(narrow: Server) -> None:
    async def test(queue: Queue) -> None:
        waiting = asyncio.create_task(queue.ask("many", n=MAX_QUEUE))
        await queue.waits_for(MAX_QUEUE)
        refused = await queue.ask("one")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["code"] == "server_busy"
        await queue.let_go()
        assert (await waiting).status_code == 200
        assert (await queue.ask("one", seed=2**63 - 1, n=2)).status_code == 200

    with_queue(narrow, test)
