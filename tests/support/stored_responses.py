"""A server with the plugin `responses` and a data directory, over ASGI."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar
from support.api_fakes import FakeBackend, FakeToolCallParser, a_server, app_of, backend_of

from fllm.config import PluginOption
from fllm.interfaces import EngineOutput
from fllm.plugins.discovery import Candidate
from fllm.plugins.loader import Plugins
from fllm.values import GenerateRequest
from fllm_api.app_state import AppState
from fllm_dialects.responses import plugin
from fllm_dialects.store import Database, PreparedStore


class GatedBackend(FakeBackend):
    """Generates its first token, and the others once its gate is open."""

    def __init__(self, steps: Iterable[Iterable[int]], *, eos: int | None) -> None:
        super().__init__([list(step) for step in steps], eos=eos)
        self.gate = asyncio.Event()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Yield the outputs."""
        waits = False
        async for output in super().generate(request):
            if waits:
                await self.gate.wait()
            waits = True
            yield output


def responses_server(
    data_dir: Path | None,
    words: tuple[str, ...] = ("Hello", " world", "!"),
    /,
    *,
    gated: bool = False,
    **parts: Any,
) -> AppState:
    """Return a server with the plugin. ``options`` are its options, ``config`` fields of `ServerConfig`."""
    plugins = Plugins()
    plugins.load(Candidate("responses", "d", "1", "m", lambda: plugin))
    options = parts.pop("options", {})
    plugins.read_options(
        PluginOption(plugin="responses", name=name, value=value, source="file")
        for name, value in options.items()
    )
    plugins.check_options()
    parts["config"] = {"data_dir": data_dir, **parts.get("config", {})}
    parts = {"tools": FakeToolCallParser, **parts}
    server = a_server(words, plugins=plugins, **parts)
    if gated:
        fake = backend_of(server)
        parts["backend"] = GatedBackend(fake.steps, eos=fake.eos)
        server = a_server(words, plugins=plugins, **parts)
    return server


class Client:
    """Sends requests to a running server."""

    def __init__(self, http: httpx.AsyncClient, app: Litestar, server: AppState) -> None:
        self.http = http
        self.app = app
        self.backend: Any = server.backend
        self.tokenizer = server.tokenizer
        self.file = (server.config.data_dir or Path()) / "responses.sqlite3"

    async def call(self, method: str, path: str, status: int = 200, /, **request: Any) -> Any:
        """Return the JSON of a response, after checking its status."""
        response = await self.http.request(method, path, **request)
        assert response.status_code == status, response.text
        return response.json()

    async def create(self, given: Any = "Hi", status: int = 200, /, **body: Any) -> Any:
        """Create a response."""
        return await self.call("POST", "/v1/responses", status, json={"model": "m", "input": given, **body})

    async def get(self, path: str, status: int = 200, /, **params: Any) -> Any:
        """Get what is stored."""
        return await self.call("GET", path, status, params=params)

    async def events(self, method: str, path: str, **request: Any) -> list[dict[str, Any]]:
        """Return the events of a stream."""
        response = await self.http.request(method, path, **request)
        assert response.headers["content-type"].startswith("text/event-stream"), response.text
        return [
            json.loads(line.removeprefix("data: "))
            for line in response.text.split("\n")
            if line.startswith("data: ")
        ]

    async def until(self, response_id: str, *statuses: str) -> Any:
        """Return a response once it has one of these statuses."""
        async with asyncio.timeout(10):
            while (response := await self.get(f"/v1/responses/{response_id}"))["status"] not in statuses:
                await asyncio.sleep(0.01)
        return response

    async def running_job(self) -> str:
        """Return the id of the only response in the background, once its first token is generated."""
        async with asyncio.timeout(10):
            while not (found := self._jobs()):
                await asyncio.sleep(0.01)
        [response_id] = found
        await self.until(response_id, "in_progress")
        return response_id

    def _jobs(self) -> list[str]:
        """Return the ids of the responses that a server works on, from the file."""
        with closing(sqlite3.connect(self.file)) as connection:
            rows = connection.execute("SELECT id FROM records WHERE server != ''").fetchall()
        return [response_id for (response_id,) in rows]

    def prompt(self, index: int = -1) -> str:
        """Return a prompt that the backend has received."""
        return self.tokenizer.decode(self.backend.prompts[index].token_ids, skip_special_tokens=False)


@asynccontextmanager
async def running(server: AppState, **http: Any) -> AsyncGenerator[Client]:
    """Run a server; give it requests with the client."""
    app = app_of(server)
    async with app.lifespan():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", **http) as client:
            yield Client(client, app, server)


def stores_opened(monkeypatch: pytest.MonkeyPatch) -> list[Database]:
    """Return a list that receives each store that is opened."""
    opened: list[Database] = []
    opens = PreparedStore.open

    async def open_and_add(prepared: PreparedStore) -> Database:
        opened.append(await opens(prepared))
        return opened[-1]

    monkeypatch.setattr(PreparedStore, "open", open_and_add)
    return opened


@asynccontextmanager
async def full_disk(database: Database) -> AsyncGenerator[None]:
    """Let nothing be written, as if the disk were full."""
    connection = database._connection
    [[pages]] = await connection.execute_fetchall("PRAGMA page_count")
    await connection.execute_fetchall(f"PRAGMA max_page_count = {pages}")
    yield
    await connection.execute_fetchall("PRAGMA max_page_count = 1000000")
