"""CORS headers."""

from __future__ import annotations

from support.api_fakes import a_server, ask

from fllm_api.api_keys import ApiKeys

KEYS = {"keys": ApiKeys(("first", "second"))}


def test_an_explicit_origin_may_use_credentials() -> None:
    server = a_server(config={"allowed_origins": ("https://a.example",)})
    response = ask(server, "GET", "/v1/models", headers={"origin": "https://a.example"})
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    assert response.headers["access-control-allow-credentials"] == "true"
    other = ask(server, "GET", "/v1/models", headers={"origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers


def test_any_origin_may_not_use_credentials() -> None:
    server = a_server(config={"allowed_origins": ("*",)})
    headers = {"origin": "https://a.example", "cookie": "a=b"}
    response = ask(server, "GET", "/v1/models", headers=headers)
    assert "access-control-allow-origin" in response.headers
    assert response.headers.get("access-control-allow-credentials", "false") == "false"


def test_a_preflight_needs_no_key() -> None:
    server = a_server(config={**KEYS, "allowed_origins": ("https://a.example",)})
    headers = {
        "origin": "https://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    response = ask(server, "OPTIONS", "/v1/chat/completions", headers=headers)
    assert response.status_code == 204
    assert "authorization" in response.headers["access-control-allow-headers"].lower()


def test_without_origins_there_is_no_cors() -> None:
    response = ask(a_server(), "GET", "/v1/models", headers={"origin": "https://a.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]
