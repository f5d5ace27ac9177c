"""HEAD, path prefixes, and requests for unknown paths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from litestar import delete, get, head
from litestar.response import Stream
from support.api_fakes import Recorder, a_server, a_server_with, ask, error_of

from fllm.errors import ConfigError
from fllm.interfaces import RequestRecord
from fllm_api.api_keys import ApiKeys
from fllm_api.app import create_app


class EndRecorder(Recorder):
    """A collector that records how requests ended, and exports metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[str, str, int | None, str | None]] = []

    def on_http_request_end(self, request: RequestRecord) -> None:
        self.ends.append((request.method, request.path, request.status, request.error))


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/v1/models", "/v1/models/org/fake", "/version", "/schema/openapi.json"]
)
def test_head_is_get_without_the_body(path: str) -> None:
    recorder = EndRecorder()
    server = a_server(collectors=[recorder])
    whole, bare = ask(server, "GET", path), ask(server, "HEAD", path)
    assert (whole.status_code, bare.status_code, bare.content) == (200, 200, b"")
    assert bare.headers["content-type"] == whole.headers["content-type"]
    assert bare.headers["content-length"] == whole.headers["content-length"]
    assert [method for method, *_ in recorder.ends] in ([], ["GET", "HEAD"])


def test_head_needs_a_key_and_knows_no_other_path() -> None:
    server = a_server(config={"keys": ApiKeys(("k",))})
    for path, status in (("/v1/models", 401), ("/health", 200), ("/nowhere", 404)):
        response = ask(server, "HEAD", path)
        assert (response.status_code, response.content) == (status, b"")


def test_head_where_there_is_only_post_is_405() -> None:
    assert ask(a_server(), "HEAD", "/v1/chat/completions").status_code == 405


def test_options_lists_the_methods_of_all_handlers_of_a_path() -> None:
    @get("/both", sync_to_thread=False)
    def read() -> None: ...

    @delete("/both", status_code=200, sync_to_thread=False)
    def remove() -> None: ...

    response = ask(a_server_with(read, remove), "OPTIONS", "/both")
    assert (response.status_code, response.headers["allow"]) == (204, "DELETE, GET, OPTIONS")
    assert ask(a_server(), "OPTIONS", "/nowhere").status_code == 404


def test_a_405_lists_the_methods() -> None:
    response = ask(a_server(), "DELETE", "/v1/models")
    assert response.status_code == 405
    assert {"GET", "HEAD"} <= set(response.headers["allow"].split(", "))
    wrong = ask(a_server(), "GET", "/v1/completions/")
    assert "HEAD" not in wrong.headers["allow"]
    assert error_of(wrong)["message"] == "Method Not Allowed: GET /v1/completions/"


def test_the_routes_of_plugins_have_head_too() -> None:
    ended = []

    @get("/endless")
    async def endless() -> Stream:
        async def count() -> AsyncIterator[bytes]:
            try:
                for _ in range(10):
                    yield b"1"
                    await asyncio.sleep(0)
            finally:
                ended.append(True)

        return Stream(count())

    @get("/own")
    async def own() -> str:
        return "got"

    @head("/own", status_code=204)
    async def own_head() -> None:
        return None

    server = a_server_with(endless, own, own_head)
    response = ask(server, "HEAD", "/endless")
    assert (response.status_code, response.content, ended) == (200, b"", [True])
    assert ask(server, "HEAD", "/own").status_code == 204
    assert ask(server, "GET", "/own").text == "got"


@pytest.mark.parametrize("path", ["/v1/models", "/llm/v1/models"])
def test_a_prefix_may_be_there_or_not(path: str) -> None:
    server = a_server(config={"root_path": "/llm"})
    assert ask(server, "GET", path).status_code == 200
    document = ask(server, "GET", "/llm/schema/openapi.json").json()
    assert document["servers"] == [{"url": "/llm"}]


@pytest.mark.parametrize("path", ["/llmv1/models", "/llm", "/llm/llm/v1/models", "/other/v1/models"])
def test_another_prefix_is_unknown(path: str) -> None:
    assert ask(a_server(config={"root_path": "/llm"}), "GET", path).status_code == 404


@pytest.mark.parametrize("prefix", ["/v1", "/v1/chat", "/health", "/schema"])
def test_a_prefix_is_no_beginning_of_a_route(prefix: str) -> None:
    with pytest.raises(ConfigError, match=f"--root-path {prefix}"):
        create_app(a_server(config={"root_path": prefix}))


def test_without_a_prefix_the_description_is_of_this_server() -> None:
    assert ask(a_server(), "GET", "/schema/openapi.json").json()["servers"] == [{"url": "/"}]


def test_requests_for_unknown_paths_and_methods_are_reported() -> None:
    recorder = EndRecorder()
    server = a_server(collectors=[recorder], config={"keys": ApiKeys(("k",))})
    statuses = [
        ask(server, method, path).status_code
        for method, path in (("POST", "/nowhere"), ("DELETE", "/v1/models"), ("GET", "/v1/models"))
    ]
    assert statuses == [404, 405, 401]
    assert [end[:3] for end in recorder.ends] == [
        ("POST", "/nowhere", 404),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models", 401),
    ]
    assert recorder.ends[0][3] == "Not Found: POST /nowhere"
    assert recorder.calls == []


def test_preflight_requests_are_not_reported() -> None:
    recorder = EndRecorder()
    headers = {"origin": "http://localhost", "access-control-request-method": "POST"}
    ask(a_server(collectors=[recorder]), "OPTIONS", "/v1/completions", headers=headers)
    assert recorder.ends == []


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/chat/completions", "use /v1/chat/completions; the base URL of clients ends with /v1"),
        ("/v1/v1/models", "use /v1/models; the base URL of clients ends with /v1"),
        ("/v1/responses", "/v1/responses is an endpoint of the plugin responses"),
    ],
)
def test_an_unknown_path_has_a_hint(path: str, hint: str) -> None:
    response = ask(a_server(), "POST", path, json={})
    assert response.status_code == 404
    assert error_of(response)["message"] == f"Not Found: POST {path}: {hint}"
