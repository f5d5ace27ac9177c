"""A server whose backend stalls, and concurrent requests to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
from support.api_fakes import Recorder, a_server, backend_of, error_of

from fllm_api.app import create_app
from fllm_api.app_state import AppState

RUNS = {"runtime": {"max_num_seqs": 1}}
COMPLETION = {"model": "m", "prompt": "Hi"}


def stalled(*, card: dict[str, Any] | None = None, **config: Any) -> AppState:
    """Return a server whose backend stalls after one step."""
    server = a_server(card=card or RUNS, config=config, collectors=[Recorder()])
    backend_of(server).stalls_after = 1
    return server


def recorder_of(server: AppState) -> Recorder:
    [recorder] = server.collectors
    assert isinstance(recorder, Recorder)
    return recorder


class Client:
    """Sends concurrent requests to one application."""

    def __init__(self, server: AppState, http: httpx.AsyncClient) -> None:
        self.server = server
        self.http = http
        self.tasks: list[asyncio.Task[httpx.Response]] = []

    async def ask(self, path: str = "completions", **body: Any) -> httpx.Response:
        return await self.http.post(f"/v1/{path}", json={**COMPLETION, **body})

    async def begin(self, **body: Any) -> asyncio.Task[httpx.Response]:
        """Send a request, and return once the backend has received it."""
        count = len(backend_of(self.server).prompts)
        task = asyncio.create_task(self.ask(**body))
        self.tasks.append(task)
        while len(backend_of(self.server).prompts) == count:
            assert not task.done(), task.result().text
            await asyncio.sleep(0)
        return task

    async def leave(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def with_client(server: AppState, test: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        transport = httpx.ASGITransport(create_app(server))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            client = Client(server, http)
            try:
                await test(client)
            finally:
                await client.leave()

    asyncio.run(main())


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    error = error_of(response)
    assert (response.status_code, error["code"]) == (status, code)
    return error
