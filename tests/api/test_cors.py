"""Which web pages may call the API."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from litestar import get
from support.api_fakes import a_server, a_server_with, ask, backend_of, chat, error_of

from fllm_api.api_keys import ApiKeys
from fllm_api.app_state import AppState
from fllm_api.config import RateLimits
from fllm_api.cors import normalize_origin

PAGE = {"origin": "https://a.example"}
LISTED = {"allowed_origins": ("https://a.example",)}
KEYS = {"keys": ApiKeys(("first", "second"))}


def preflight(server: AppState, origin: str, **headers: str) -> httpx.Response:
    headers = {"origin": origin, "access-control-request-method": "POST", **headers}
    return ask(server, "OPTIONS", "/v1/chat/completions", headers=headers)


def cors_headers(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control")}


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "http://localhost:3000",
        "https://127.0.0.1:1",
        "http://[::1]:65535",
        "https://[::1]",
    ],
)
def test_pages_of_this_machine_may_call_by_default(origin: str) -> None:
    response = ask(a_server(), "GET", "/v1/models", headers={"origin": origin})
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in response.headers
    assert preflight(a_server(), origin).headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    "origin",
    [
        *("https://a.example", "null", "http://localhost.a.example", "http://localhost:1.a.example"),
        *("http://notlocalhost", "http://127.0.0.1.a.example", "file://", "http://localhost:1/", ""),
    ],
)
def test_other_pages_may_not(origin: str) -> None:
    response = ask(a_server(), "GET", "/v1/models", headers={"origin": origin})
    assert (response.status_code, cors_headers(response)) == (200, {})
    assert response.headers["vary"] == "Origin"
    assert cors_headers(preflight(a_server(), origin)) == {}


def test_no_page_may_call_if_there_is_no_origin() -> None:
    server = a_server(config={"allowed_origins": ()})
    assert cors_headers(ask(server, "GET", "/v1/models", headers={"origin": "http://localhost"})) == {}


def test_a_listed_page_may_use_credentials_and_read_the_limits() -> None:
    response = ask(a_server(config=LISTED), "GET", "/v1/models", headers=PAGE)
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    assert response.headers["access-control-allow-credentials"] == "true"
    exposed = response.headers["access-control-expose-headers"].split(", ")
    assert {"retry-after", "x-request-id", "x-ratelimit-remaining-tokens"} < set(exposed)
    local = {"origin": "http://localhost"}
    assert cors_headers(ask(a_server(config=LISTED), "GET", "/v1/models", headers=local)) == {}


def test_local_pages_next_to_listed_ones_have_no_credentials() -> None:
    server = a_server(config={"allowed_origins": ("localhost", "https://a.example")})
    for origin, credentials in (("http://localhost:1", None), ("https://a.example", "true")):
        headers = preflight(server, origin).headers
        assert headers["access-control-allow-origin"] == origin
        assert headers.get("access-control-allow-credentials") == credentials


def test_every_header_of_a_limit_is_exposed() -> None:
    limits = RateLimits(tokens_per_minute=1000)
    response = chat(a_server(config={**LISTED, "limits": limits}))
    sent = {name for name in response.headers if name.startswith("x-ratelimit")}
    assert sent
    exposed = ask(a_server(config=LISTED), "GET", "/v1/models", headers=PAGE).headers
    assert sent <= set(exposed["access-control-expose-headers"].split(", "))


def test_any_page_may_call_without_credentials() -> None:
    server = a_server(config={"allowed_origins": ("localhost", "*")})
    response = ask(server, "GET", "/v1/models", headers={**PAGE, "cookie": "a=b"})
    assert response.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in response.headers
    assert "vary" not in response.headers


def test_a_star_stands_for_a_part_of_an_origin() -> None:
    server = a_server(config={"allowed_origins": ("https://*.a.example",)})
    inside = preflight(server, "https://b.a.example")
    assert inside.headers["access-control-allow-origin"] == "https://b.a.example"
    assert cors_headers(preflight(server, "https://a.example")) == {}
    for origin in ("https://.a.example", "https://b.a.example.evil", "http://b.a.example", "https://a"):
        assert cors_headers(preflight(server, origin)) == {}


def test_a_preflight_request_needs_no_key() -> None:
    asked = {"access-control-request-headers": "authorization,x-stainless-os"}
    response = preflight(a_server(config={**KEYS, **LISTED}), "https://a.example", **asked)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert "POST" in response.headers["access-control-allow-methods"]
    assert "access-control-allow-private-network" not in response.headers


def test_a_public_page_that_is_allowed_may_call_a_private_network() -> None:
    asked = {"access-control-request-private-network": "true"}
    response = preflight(a_server(config=LISTED), "https://a.example", **asked)
    assert response.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/nowhere", {}, 404),
        ("/v1/models", {}, 405),
        ("/v1/chat/completions", {}, 400),
        ("/v1/completions", {"model": "m", "prompt": "Hi"}, 500),
        ("/v1/completions", {"model": "m", "prompt": "Hi", "stream": True}, 500),
    ],
)
def test_a_page_can_read_errors(path: str, body: Any, status: int) -> None:
    server = a_server(config=LISTED)
    backend_of(server).fails_after = 0
    response = ask(server, "POST", path, json=body, headers=PAGE)
    assert (response.status_code, bool(error_of(response))) == (status, True)
    assert response.headers["access-control-allow-origin"] == "https://a.example"


def test_a_page_can_read_that_its_key_is_wrong() -> None:
    response = ask(a_server(config={**KEYS, **LISTED}), "GET", "/v1/models", headers=PAGE)
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == "https://a.example"


def test_a_page_can_read_a_stream() -> None:
    body = {"model": "m", "prompt": "Hi", "stream": True}
    response = ask(a_server(config=LISTED), "POST", "/v1/completions", json=body, headers=PAGE)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://a.example"


def test_a_plugins_own_headers_take_precedence() -> None:
    @get("/own", response_headers={"access-control-allow-origin": "https://own.example", "vary": "Accept"})
    async def own() -> str:
        return "got"

    response = ask(a_server_with(own), "GET", "/own", headers={"origin": "http://localhost"})
    assert response.headers.get_list("access-control-allow-origin") == ["https://own.example"]
    assert response.headers.get_list("vary") == ["Accept", "Origin"]


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://Example.org/", "https://example.org"),
        *((each, each) for each in ("*", "null", "localhost", "chrome-extension://abc", "http://[::1]:80")),
    ],
)
def test_an_origin_is_written_as_browsers_send_it(text: str, origin: str) -> None:
    assert normalize_origin(text) == origin


@pytest.mark.parametrize(
    "text", ["", "example.org", "https://a.example/path", "https://", "a b", "https://a:b", "https://*.*.a"]
)
def test_text_that_is_no_origin_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        normalize_origin(text)
