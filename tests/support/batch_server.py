"""A server with files and batches over a scripted backend, in one event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from support.api_fakes import a_server, app_of

import fllm_dialects.batches.plugin
from fllm.config import PluginOption
from fllm.plugins.discovery import Candidate
from fllm.plugins.loader import Plugins
from fllm_api.app_state import AppState

CHAT = "/v1/chat/completions"
CHAT_BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
ENDED = ("failed", "completed", "expired", "cancelled")


def a_batch_server(*, options: dict[str, Any] | None = None, **parts: Any) -> AppState:
    """Return a server with the plugin of batches."""
    return a_server(plugins=batch_plugins(options), **parts)


def batch_plugins(options: dict[str, Any] | None = None) -> Plugins:
    """Return the plugin of batches with its options."""
    plugins = Plugins()
    module = fllm_dialects.batches.plugin
    plugins.load(Candidate("batches", "furiosa-llm-server", "1", "m", lambda: module))
    plugins.read_options(
        PluginOption(plugin="batches", name=name, value=str(value), source="command line")
        for name, value in (options or {}).items()
    )
    plugins.check_options()
    return plugins


class BatchClient:
    """Uploads files and follows batches."""

    def __init__(self, app: Any, http: httpx.AsyncClient) -> None:
        self.app = app
        self.http = http

    async def upload(self, content: str | bytes, **fields: str) -> httpx.Response:
        """Upload an input file."""
        form = {"purpose": "batch", **fields}
        return await self.http.post("/v1/files", data=form, files={"file": ("in.jsonl", content)})

    async def create(self, content: str, endpoint: str = CHAT, **body: Any) -> Any:
        """Upload an input file and start a batch."""
        file = (await self.upload(content)).json()
        body = {"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h", **body}
        response = await self.http.post("/v1/batches", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    async def get(self, path: str) -> Any:
        """Return the JSON of a path."""
        response = await self.http.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    async def until(self, batch_id: str, reached: Callable[[Any], bool]) -> Any:
        """Return a batch once it has reached a state."""
        async with asyncio.timeout(10):
            while not reached(batch := await self.get(f"/v1/batches/{batch_id}")):
                await asyncio.sleep(0.01)
        return batch

    async def finish(self, batch_id: str) -> Any:
        """Return a batch once it has ended."""
        return await self.until(batch_id, lambda batch: batch["status"] in ENDED)

    async def lines(self, file_id: str | None) -> dict[str, Any]:
        """Return the lines of a file by their ids."""
        if file_id is None:
            return {}
        response = await self.http.get(f"/v1/files/{file_id}/content")
        assert response.status_code == 200, response.text
        lines = [json.loads(line) for line in response.text.splitlines()]
        found = {line["custom_id"]: line for line in lines}
        assert len(found) == len(lines)
        return found


@asynccontextmanager
async def serving_batches(server: AppState, **headers: str) -> AsyncGenerator[BatchClient]:
    """Run the application; start it again with the same data directory to continue."""
    app = app_of(server)
    async with app.lifespan():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            yield BatchClient(app, http)


def run(server: AppState, work: Callable[[BatchClient], Awaitable[None]], **headers: str) -> None:
    """Run work with a client of the server."""

    async def go() -> None:
        async with serving_batches(server, **headers) as client:
            await work(client)

    asyncio.run(go())


def lines(*ids: str, url: str = CHAT, body: Any = CHAT_BODY) -> str:
    """Return an input file with one request for each id."""
    made = [{"custom_id": each, "method": "POST", "url": url, "body": body} for each in ids]
    return "".join(f"{json.dumps(each)}\n" for each in made)
