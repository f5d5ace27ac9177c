"""The field ``model`` of a request picks one of several models."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import httpx
import pytest
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from support.api_fakes import Recorder, a_server, backend_of, chat
from support.served_models import SeveralModels, two_models

from fllm import BackendUnavailable, Serving, hookimpl
from fllm.config import LoraAdapter
from fllm.plugins.discovery import Candidate
from fllm.plugins.loader import Plugins
from fllm_api.adapters import AdapterRegistry
from fllm_api.config import RateLimits


def run(server: SeveralModels, work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def go() -> None:
        async with server.client() as client:
            await work(client)

    asyncio.run(go())


def chat_body(model: str | None, **body: Any) -> dict[str, Any]:
    named = {} if model is None else {"model": model}
    return {**named, "messages": [{"role": "user", "content": "Hi"}], **body}


async def ask(client: httpx.AsyncClient, model: str | None, **body: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=chat_body(model, **body))


def text(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content


def test_each_model_answers_under_its_name() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        for name in "abba":
            response = await ask(client, name)
            assert (text(response), response.json()["model"]) == (f"from {name}", name)
            completed = await client.post("/v1/completions", json={"model": name, "prompt": "Hi"})
            assert completed.json()["choices"][0]["text"] == f"from {name}"
        assert text(await ask(client, None)) == "from a", "without a name, the first model answers"

    run(two_models(), work)


def test_a_stream_comes_from_its_model() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        response = await ask(client, "b", stream=True)
        assert '" b"' in response.text
        assert response.text.endswith("data: [DONE]\n\n")

    run(two_models(), work)


def test_an_unknown_name_is_404_if_there_are_several_models() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        response = await ask(client, "c")
        assert response.status_code == 404
        assert response.json()["error"] == {
            "message": "the model 'c' does not exist; this server serves 'a' or 'b'",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }

    run(two_models(), work)


def test_one_model_has_any_name_unless_names_are_strict() -> None:
    assert chat(a_server(["x"]), model="whatever").status_code == 200
    strict = a_server(["x"], config={"strict_model_name": True})
    assert chat(strict, model="whatever").json()["error"]["code"] == "model_not_found"
    assert chat(strict, model="org/fake").status_code == 200


def test_an_invalid_body_loads_no_model() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await ask(client, "a", max_tokens="five")).status_code == 400
        assert (await client.post("/v1/chat/completions", json={"model": 5})).status_code == 400
        states = [each["state"] for each in (await client.get("/v1/models")).json()["data"]]
        assert states == ["unloaded", "unloaded"]

    run(two_models(), work)


def test_the_list_of_models_has_their_state() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        await ask(client, "b")
        listed = (await client.get("/v1/models")).json()["data"]
        assert [(each["id"], each["state"], each["memory"], each["pinned"]) for each in listed] == [
            ("a", "unloaded", 0, False),
            ("b", "loaded", 1, False),
        ]
        assert "max_model_len" not in listed[0]
        assert listed[1]["max_model_len"] == 512
        assert (await client.get("/v1/models/a")).json() == listed[0]
        assert (await client.get("/v1/models/c")).status_code == 404

    run(two_models(), work)


def test_health_is_that_of_the_loaded_models() -> None:
    server = two_models()

    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get("/health")).status_code == 200
        await ask(client, "a")
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 200
        backend_of(server.loaders["a"].state).health = BackendUnavailable("dead")
        response = await client.get("/health")
        assert response.status_code == 503
        assert response.json()["error"]["message"] == "a: dead"

    run(server, work)


def test_a_server_whose_only_model_is_down_is_not_ready() -> None:
    server = SeveralModels({"a": a_server(["x"])})

    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get("/ready")).status_code == 200
        await ask(client, "a")
        assert (await client.get("/ready")).status_code == 200
        backend_of(server.loaders["a"].state).health = BackendUnavailable("dead")
        response = await client.get("/ready")
        assert (response.status_code, response.json()["error"]["message"]) == (503, "dead")

    run(server, work)


def test_a_model_that_is_being_unloaded_is_not_unhealthy() -> None:
    server = two_models()

    async def work(client: httpx.AsyncClient) -> None:
        await ask(client, "a")
        backend_of(server.loaders["a"].state).health = BackendUnavailable("stopped")
        unloading = asyncio.create_task(server.pool.unload(server.pool.models[0]))
        await asyncio.sleep(0)
        assert server.pool.models[0].state == "unloading"
        await server.registry.check_health()
        await unloading

    run(server, work)


def test_a_stream_that_waits_for_its_model_has_comments_with_its_place() -> None:
    server = two_models(config={"sse_keep_alive": 0.02})
    server.loaders["b"].may_load.clear()

    async def work(client: httpx.AsyncClient) -> None:
        asking = asyncio.create_task(ask(client, "b", stream=True))
        await asyncio.sleep(0.07)
        server.loaders["b"].may_load.set()
        response = await asking
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        first, *_, last = response.text.split("\n\n")[:-1]
        assert first == ": request 1 of 1 that wait for the model 'b', which is being loaded"
        assert last == "data: [DONE]"
        assert '" b"' in response.text

    run(server, work)


def test_a_stream_that_has_begun_to_wait_ends_with_an_error_event() -> None:
    server = two_models(config={"sse_keep_alive": 0.02})
    server.loaders["b"].may_load.clear()
    server.loaders["b"].fails = True

    async def work(client: httpx.AsyncClient) -> None:
        asking = asyncio.create_task(ask(client, "b", stream=True))
        await asyncio.sleep(0.07)
        server.loaders["b"].may_load.set()
        response = await asking
        assert response.status_code == 200
        *_, error, done = response.text.split("\n\n")[:-1]
        assert error.startswith('data: {"error":{"message":"the model \'b\' can\'t be loaded;')
        assert done == "data: [DONE]"

    run(server, work)


def test_a_request_error_of_a_stream_that_has_waited_is_an_event() -> None:
    server = two_models(config={"sse_keep_alive": 0.02})
    server.loaders["b"].may_load.clear()

    async def work(client: httpx.AsyncClient) -> None:
        asking = asyncio.create_task(ask(client, "b", stream=True, max_tokens=0))
        await asyncio.sleep(0.07)
        server.loaders["b"].may_load.set()
        response = await asking
        assert '"param":"max_tokens"' in response.text
        assert response.text.endswith("data: [DONE]\n\n")

    run(server, work)


def test_a_model_that_can_not_be_loaded_is_503() -> None:
    server = two_models()
    server.loaders["b"].fails = True

    async def work(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            response = await ask(client, "b", stream=True)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"]["code"] == "model_unavailable"
        assert text(await ask(client, "a")) == "from a"

    run(server, work)


def test_the_time_limit_holds_while_a_request_waits() -> None:
    server = two_models(config={"request_timeout": 0.05})
    server.loaders["b"].may_load.clear()

    async def work(client: httpx.AsyncClient) -> None:
        assert (await ask(client, "b")).status_code == 504
        assert server.pool.waiting(server.pool.models[1]) == 0
        assert text(await ask(client, "a")) == "from a"

    run(server, work)


def test_a_client_that_disconnects_while_it_waits_leaves_the_line() -> None:
    server = two_models(budget=1)
    server.loaders["b"].may_load.clear()

    async def go() -> None:
        body = b'{"model":"b","prompt":"Hi"}'
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        disconnected = asyncio.Event()

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await disconnected.wait()
            return {"type": "http.disconnect"}

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope: Any = {
            **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST"},
            **{"scheme": "http", "path": "/v1/completions", "raw_path": b"/v1/completions"},
            **{"query_string": b"", "root_path": "", "client": ("1.2.3.4", 5), "server": ("test", 80)},
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))],
        }
        asking = asyncio.create_task(server.app(scope, receive, send))  # type: ignore[arg-type]
        while not server.pool.waiting(server.pool.models[1]):
            await asyncio.sleep(0)
        disconnected.set()
        await asking
        assert server.pool.waiting(server.pool.models[1]) == 0
        await server.pool.close()

    asyncio.run(go())


def test_alternating_requests_are_all_answered_under_a_budget_for_one_model() -> None:
    server = two_models(budget=1)

    async def work(client: httpx.AsyncClient) -> None:
        async def one(number: int) -> None:
            name = "ab"[number % 2]
            assert text(await ask(client, name)) == f"from {name}"

        await asyncio.gather(*map(one, range(60)))
        loads = sum(model.loads for model in server.pool.models)
        assert loads <= 10, "requests that wait for the same model are a group"
        assert server.pool.used <= 1

    run(server, work)


def test_limits_of_a_client_hold_across_models() -> None:
    server = two_models(config={"limits": RateLimits(concurrency=1)})
    server.loaders["b"].may_load.clear()

    async def work(client: httpx.AsyncClient) -> None:
        waiting = asyncio.create_task(ask(client, "b"))
        await asyncio.sleep(0.01)
        assert (await ask(client, "a")).status_code == 429
        server.loaders["b"].may_load.set()
        assert text(await waiting) == "from b"

    run(server, work)


def test_an_adapter_picks_its_model() -> None:
    adapters = AdapterRegistry(None, [LoraAdapter(id=1, name="sql", path="/sql")], model="/m")
    server = SeveralModels({"a": a_server(["from", " a"]), "b": a_server(["from", " b"], adapters=adapters)})

    async def work(client: httpx.AsyncClient) -> None:
        response = await ask(client, "sql")
        assert (text(response), response.json()["model"]) == ("from b", "sql")
        listed = (await client.get("/v1/models")).json()["data"]
        assert [(each["id"], each.get("parent")) for each in listed] == [
            ("a", None),
            ("b", None),
            ("sql", "b"),
        ]

    run(server, work)


def test_collectors_learn_the_model_of_each_request() -> None:
    recorder = Recorder()
    server = two_models(collectors=[recorder])

    async def work(client: httpx.AsyncClient) -> None:
        for name in "abc":
            await ask(client, name)

    run(server, work)
    assert [request.model for request in recorder.requests] == ["a", "b", ""]
    assert [call for call in recorder.calls if not call.startswith("on_progress")] == [
        *("on_request_start", "on_first_token", "on_request_end None") * 2,
        "on_request_start",
        "on_request_end the model 'c' does not exist; this server serves 'a' or 'b'",
    ]


@get("/which")
async def which(server: NamedDependency[Serving]) -> str:
    return str(server.card.max_model_len)


@post("/measure")
async def measure(server: NamedDependency[Serving], data: JSONBody[dict[str, Any]]) -> str:
    return str(server.card.max_model_len)


def test_the_routes_of_plugins_get_the_model_that_is_named() -> None:
    plugins = Plugins()
    module = ModuleType("p")
    module.fllm_routes = hookimpl(lambda: [which, measure], specname="fllm_routes")  # type: ignore[attr-defined]
    plugins.load(Candidate("p", "d", "1", "m", lambda: module))
    server = SeveralModels(
        {"a": a_server(card={"max_model_len": 100}), "b": a_server(card={"max_model_len": 200})},
        plugins=plugins,
    )

    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get("/which")).text == "100"
        assert (await client.get("/which", params={"model": "b"})).text == "200"
        assert (await client.post("/measure", json={"model": "b"})).text == "200"
        assert (await client.post("/measure", json={"model": "b", "stream": {}})).text == "200"
        assert (await client.post("/measure", json={}, params={"model": "b"})).text == "200"
        assert (await client.post("/measure", json={"model": "c"})).status_code == 404
        assert all(model.in_flight == 0 for model in server.pool.models)

    run(server, work)


@pytest.mark.parametrize("path", ["/v1/models", "/version", "/schema/openapi.json"])
def test_general_routes_need_no_loaded_model(path: str) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get(path)).status_code == 200

    run(two_models(), work)
