"""Keys, limits and collectors apply to the routes of all dialects; errors have the dialect's envelope."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import pytest
from msgspec import Struct
from support.api_fakes import Recorder, a_server, app_of, ask, backend_of
from support.stalled_server import RUNS, recorder_of

from fllm.config import PluginConfig
from fllm.plugins.loader import load_plugins
from fllm.testing import plugins_with
from fllm_api.api_keys import ApiKeys
from fllm_api.app_state import AppState
from fllm_api.config import RateLimits

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
QUESTIONS: Any = {"state": "Hi", "questions": {"greets": {"type": "noul", "instructions": "A greeting?"}}}
Envelope = Callable[[Mapping[str, Any]], str]


def openai_message(body: Mapping[str, Any]) -> str:
    """Return the message of an error of OpenAI's API."""
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return str(body["error"]["message"])


def anthropic_message(body: Mapping[str, Any]) -> str:
    """Return the message of an error of Anthropic's API."""
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert {"type", "message"} <= set(body["error"])
    return str(body["error"]["message"])


def ollama_message(body: Mapping[str, Any]) -> str:
    """Return the message of an error of Ollama's API."""
    assert set(body) == {"error"}
    return str(body["error"])


def systemone_message(body: Mapping[str, Any]) -> str:
    """Return the message of an error of TypeSafe's API, which is in OpenAI's envelope, too."""
    message = openai_message({"error": body["error"]})
    assert body == {"error": body["error"], "detail": message}
    return message


class Route(Struct, frozen=True):
    """An endpoint of a dialect with a small request."""

    plugin: str
    path: str
    body: dict[str, Any]
    message: Envelope
    generates: bool = True
    status: int = 200
    """Status of its response. Nothing is stored here, so the request for a batch is invalid."""


ROUTES = [
    Route("responses", "/v1/responses", {"input": "Hi"}, openai_message),
    Route("responses", "/v1/responses/input_tokens", {"input": "Hi"}, openai_message, generates=False),
    Route("messages", "/v1/messages", {"max_tokens": 9, "messages": MESSAGES}, anthropic_message),
    Route(
        "messages", "/v1/messages/count_tokens", {"messages": MESSAGES}, anthropic_message, generates=False
    ),
    Route("ollama", "/api/chat", {"model": "m", "messages": MESSAGES}, ollama_message),
    Route("ollama", "/api/generate", {"model": "m", "prompt": "Hi"}, ollama_message),
    Route("tokens", "/tokenize", {"prompt": "Hi"}, openai_message, generates=False),
    Route("tokens", "/detokenize", {"tokens": [1]}, openai_message, generates=False),
    Route("tokens", "/apply-template", {"messages": MESSAGES}, openai_message, generates=False),
    Route("systemone", "/v1/systemone", QUESTIONS, systemone_message, generates=False),
    Route("batches", "/v1/batches", {}, openai_message, generates=False, status=400),
]
every_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
every_generating_route = pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.generates], ids=lambda route: route.path
)


def send(server: AppState, route: Route, **request: Any) -> httpx.Response:
    return ask(server, "POST", route.path, json=route.body, **request)


@pytest.fixture(scope="module")
def keyed() -> AppState:
    """Return a server with a key."""
    return a_server(plugins=plugins_with(), config={"keys": ApiKeys(("k",)), "max_body_bytes": 2000})


@every_route
def test_a_key_is_required(keyed: AppState, route: Route) -> None:
    response = send(keyed, route)
    assert response.status_code == 401
    assert "key" in route.message(response.json())
    for headers in ({"authorization": "Bearer k"}, {"x-api-key": "k"}):
        assert send(keyed, route, headers=headers).status_code == route.status


@every_route
def test_a_large_body_is_refused(keyed: AppState, route: Route) -> None:
    response = ask(
        keyed, "POST", route.path, json={**route.body, "x": "x" * 3000}, headers={"x-api-key": "k"}
    )
    assert response.status_code == 413
    assert "Too Large" in route.message(response.json())


@every_route
def test_invalid_json_is_refused(keyed: AppState, route: Route) -> None:
    headers = {"x-api-key": "k", "content-type": "application/json"}
    response = ask(keyed, "POST", route.path, content="{", headers=headers)
    assert response.status_code == 400
    assert route.message(response.json())


@every_route
def test_another_method_is_not_allowed(keyed: AppState, route: Route) -> None:
    response = ask(keyed, "PUT", route.path, headers={"x-api-key": "k"})
    assert response.status_code == 405
    assert "Not Allowed" in route.message(response.json())
    assert "POST" in response.headers["allow"]
    if route.plugin == "messages":
        assert response.headers["request-id"] == response.json()["request_id"]


@pytest.fixture(scope="module")
def limited() -> AppState:
    """Return a server whose backend stalls, and where a client may have one request."""
    limits = {"limits": RateLimits(concurrency=1)}
    server = a_server(plugins=plugins_with(), card=RUNS, config=limits, collectors=[Recorder()])
    backend_of(server).stalls_after = 1
    return server


@pytest.fixture(scope="module")
def recorded() -> AppState:
    """Return a server with a collector."""
    return a_server(plugins=plugins_with(), collectors=[Recorder()])


@every_generating_route
def test_a_client_has_a_limited_number_of_concurrent_requests(limited: AppState, route: Route) -> None:
    backend, recorder = backend_of(limited), recorder_of(limited)
    before = len(backend.prompts)

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app_of(limited))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body = {**route.body, "stream": False}
            first = asyncio.create_task(client.post(route.path, json=body))
            while len(backend.prompts) == before:
                assert not first.done(), first.result().text
                await asyncio.sleep(0)
            response = await client.post(route.path, json=body)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return response

    response = asyncio.run(main())
    assert response.status_code == 429
    assert response.headers["retry-after"] == "1"
    assert route.message(response.json())
    assert len(backend.prompts) == len(backend.aborted) == before + 1
    assert [record.path for record in recorder.requests[-2:]] == [route.path] * 2


@every_generating_route
def test_collectors_see_its_tokens(recorded: AppState, route: Route) -> None:
    recorder = recorder_of(recorded)
    recorder.calls.clear()
    body = {**route.body, "stream": False}
    assert ask(recorded, "POST", route.path, json=body).status_code == 200
    record = recorder.requests[-1]
    assert (record.path, record.status, record.generated_tokens) == (route.path, 200, 4)
    assert recorder.calls[0] == "on_request_start"
    assert recorder.calls[-1] == "on_request_end None"


@pytest.mark.parametrize(
    "plugins", [("responses", "tokens", "batches"), ("messages", "ollama", "systemone")], ids=", ".join
)
def test_each_dialect_can_be_left_out(plugins: Sequence[str]) -> None:
    server = a_server(plugins=load_plugins(PluginConfig(disabled=tuple(plugins))))
    for route in ROUTES:
        response = send(server, route)
        if route.plugin in plugins:
            assert response.status_code == 404
            assert f"plugin {route.plugin}" in openai_message(response.json())
        else:
            assert response.status_code == route.status, response.text
