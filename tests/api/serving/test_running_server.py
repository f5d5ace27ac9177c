"""Work of plugins that outlives a request, and requests that they make themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from litestar import Request, get
from litestar.params import FromPath, FromQuery
from support.api_fakes import Recorder, a_server, backend_of
from support.route_plugins import say_route, server_with_routes

from fllm.errors import BackendUnavailable
from fllm.plugins.discovery import Candidate
from fllm.plugins.hooks import hookimpl
from fllm.plugins.loader import Plugins
from fllm.requests.chat import ChatMessage, ChatRequest
from fllm.serving import RoutesContext, Serving
from fllm_api.api_keys import ApiKeys
from fllm_api.app import create_app
from fllm_api.app_state import AppState
from fllm_api.config import RateLimits

CHAT = ChatRequest(messages=[ChatMessage(role="user", content="Hi")])


def run(
    work: Callable[[RoutesContext, AppState], Awaitable[Any]], *, routes: Sequence[Any] = (), **parts: Any
) -> Any:
    """Return the result of work with the context of a plugin whose server has started."""
    contexts: list[RoutesContext] = []

    def add(context: RoutesContext) -> list[Any]:
        contexts.append(context)
        return [say_route([]), *routes]

    async def go() -> Any:
        server = server_with_routes(add, **parts)
        create_app(server)
        return await work(contexts[-1], server)

    return asyncio.run(go())


def test_a_request_of_a_plugin_is_like_one_over_http() -> None:
    recorder = Recorder()

    async def work(context: RoutesContext, server: AppState) -> None:
        body = json.dumps({"text": "Hi"}).encode()
        response = await context.server.call("POST", "/say", body, client="key:1", priority=5)
        assert (response.status, json.loads(response.body)["text"]) == (200, "ab")
        [prompt] = backend_of(server).prompts
        assert (prompt.client, prompt.priority) == ("key:1", 5)
        assert (await context.server.call("GET", "/nowhere", b"", client="c")).status == 404

    run(work, collectors=[recorder], config={"keys": ApiKeys(["k"])})
    assert [request.path for request in recorder.requests] == ["/say"]


def test_a_request_of_a_plugin_may_have_a_query_and_any_characters() -> None:
    @get("/echo/{name:str}", sync_to_thread=False)
    def echo(name: FromPath[str], word: FromQuery[str], request: Request[Any, Any, Any]) -> list[str]:
        return [name, word, request.scope["raw_path"].decode()]

    async def work(context: RoutesContext, server: AppState) -> Any:
        response = await context.server.call("GET", "/echo/\u00fc%20a?word=b%26c%20\u00e4", b"", client="c")
        return json.loads(response.body)

    assert run(work, routes=[echo]) == ["\u00fc a", "b&c \u00e4", "/echo/%C3%BC%20a"]


def test_a_request_of_a_plugin_can_not_use_the_admin_routes() -> None:
    async def work(context: RoutesContext, server: AppState) -> int:
        response = await context.server.call("GET", "/admin/models", b"", client="c")
        return response.status

    assert run(work, config={"admin_keys": ApiKeys(["a"])}) == 401


def test_a_request_of_a_plugin_is_aborted_with_its_caller() -> None:
    async def work(context: RoutesContext, server: AppState) -> list[str]:
        backend_of(server).stalls_after = 1
        calling = asyncio.create_task(
            context.server.call("POST", "/say", b'{"text":"Hi"}', client="c")  # type: ignore[arg-type]
        )
        while not backend_of(server).prompts:
            await asyncio.sleep(0.001)
        calling.cancel()
        await asyncio.wait([calling])
        return backend_of(server).aborted

    assert len(run(work)) == 1


def test_background_work_is_tracked_and_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fllm_api.serving.running_server.RETRY_SECONDS", 0.001)
    recorder = Recorder()

    async def work(context: RoutesContext, server: AppState) -> list[str]:
        texts: list[str] = []
        running, go_on = asyncio.Event(), asyncio.Event()

        async def generate(serving: Serving) -> None:
            running.set()
            await go_on.wait()
            [output] = await serving.whole(await serving.read_chat(CHAT))
            texts.append(serving.owner)
            assert output.usage.completion_tokens == 3

        tasks = [
            context.server.start(generate, client="c", owner=name, path="/jobs") for name in ("one", "two")
        ]
        await running.wait()
        await asyncio.sleep(0.01)
        assert [request.path for request in recorder.requests] == ["/jobs", "/jobs"]
        assert not backend_of(server).prompts
        go_on.set()
        await asyncio.gather(*tasks)
        return texts

    assert run(work, collectors=[recorder], config={"limits": RateLimits(concurrency=1)}) == ["one", "two"]
    assert [request.finish_reasons for request in recorder.requests] == [("stop",), ("stop",)]
    assert [request.error for request in recorder.requests] == [None, None]


def test_background_work_ends_when_the_server_stops() -> None:
    async def work(context: RoutesContext, server: AppState) -> None:
        started = asyncio.Event()

        async def wait(_: Serving) -> None:
            started.set()
            await asyncio.Event().wait()

        task = context.server.start(wait, client="c", path="/jobs")
        await started.wait()
        server.drain.start()
        assert server.drain.in_flight == 1
        server.drain.expire_all()
        with pytest.raises(BackendUnavailable, match="shutting down"):
            await task
        with pytest.raises(BackendUnavailable, match="shutting down"):
            await context.server.start(wait, client="c", path="/jobs")

    run(work)


def test_resources_of_a_plugin_are_open_while_the_server_runs() -> None:
    states: list[str] = []

    @asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        states.append("open")
        yield
        states.append("closed")

    def routes(context: RoutesContext) -> list[Any]:
        context.lifespan(resources)
        return [say_route([])]

    async def go() -> None:
        app = create_app(server_with_routes(routes))
        async with app.lifespan():
            assert states == ["open"]

    asyncio.run(go())
    assert states == ["open", "closed"]


def test_a_plugin_that_is_left_out_opens_no_resources() -> None:
    opened: list[str] = []

    def plugin(name: str, *, fails: bool) -> ModuleType:
        @asynccontextmanager
        async def resources() -> AsyncIterator[None]:
            opened.append(name)
            yield

        def routes(context: RoutesContext) -> list[Any] | None:
            context.lifespan(resources)
            if fails:
                raise ValueError("no")
            return None

        module = ModuleType(name)
        module.fllm_routes = hookimpl(routes, specname="fllm_routes")  # type: ignore[attr-defined]
        return module

    async def go() -> None:
        plugins = Plugins()
        for name, fails in (("broken", True), ("whole", False)):
            plugins.load(Candidate(name, "d", "1", name, partial(plugin, name, fails=fails)))
        async with create_app(a_server(plugins=plugins)).lifespan():
            pass

    asyncio.run(go())
    assert opened == ["whole"]
