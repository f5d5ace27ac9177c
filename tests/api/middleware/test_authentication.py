"""Which requests need an API key."""

from __future__ import annotations

import pytest
from litestar import get
from litestar.di import NamedDependency
from support.api_fakes import Recorder, a_server, a_server_with, ask, error_of

from fllm import ADMIN_TOO, PUBLIC, Client
from fllm_api.api_keys import ApiKeys
from fllm_api.app_state import AppState

KEYS = {"keys": ApiKeys(("first", "sk-~+/=!"))}


@pytest.mark.parametrize("path", ["/v1/models", "/version", "/schema", "/schema/openapi.json", "/metrics"])
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "first", "Basic first", "Bearer first2"])
def test_every_route_needs_a_key(path: str, header: str | None) -> None:
    server = a_server(config={**KEYS, "enable_metrics": True})
    response = ask(server, "GET", path, headers={"authorization": header} if header else {})
    error = error_of(response)
    assert (response.status_code, error["type"], error["code"]) == (
        401,
        "authentication_error",
        "invalid_api_key",
    )
    assert response.headers["www-authenticate"] == "Bearer"


def test_the_key_is_checked_before_the_body_is_read() -> None:
    response = ask(a_server(config=KEYS), "POST", "/v1/chat/completions", content=b"{")
    assert response.status_code == 401


@pytest.mark.parametrize("header", ["Bearer first", "bEARER first", "Bearer   first", "Bearer sk-~+/=!"])
def test_each_key_is_accepted(header: str) -> None:
    assert (
        ask(a_server(config=KEYS), "GET", "/v1/models", headers={"authorization": header}).status_code == 200
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "first"},
        {"X-Api-Key": "sk-~+/=!", "authorization": "Bearer "},
        {"x-api-key": "first", "authorization": "Bearer"},
        {"x-api-key": "first", "authorization": "Bearer wrong"},
        {"x-api-key": "wrong", "authorization": "Bearer first"},
        {"x-api-key": "", "authorization": "Bearer first"},
        {"x-api-key": "first", "authorization": "Basic abc"},
    ],
)
def test_a_key_may_be_in_a_header_of_its_own(headers: dict[str, str]) -> None:
    assert ask(a_server(config=KEYS), "GET", "/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["", "wrong", "Bearer first", "first2"])
def test_another_key_in_that_header_is_rejected(key: str, caplog: pytest.LogCaptureFixture) -> None:
    response = ask(a_server(config=KEYS), "GET", "/v1/models", headers={"x-api-key": key})
    assert response.status_code == 401
    assert "x-api-key" in error_of(response)["message"]
    assert not key or key not in response.text + caplog.text


def test_two_keys_in_that_header_are_none() -> None:
    headers = [("x-api-key", "first"), ("x-api-key", "first")]
    assert ask(a_server(config=KEYS), "GET", "/v1/models", headers=headers).status_code == 401


def test_both_headers_name_the_same_client() -> None:
    keys = ApiKeys(("first",))
    recorder = Recorder()
    server = a_server(config={"keys": keys}, collectors=[recorder])
    for headers in ({"x-api-key": "first"}, {"authorization": "Bearer first"}):
        ask(server, "POST", "/v1/completions", json={"model": "m", "prompt": "Hi"}, headers=headers)
    assert {request.client for request in recorder.requests} == {keys.client(b"first")}


@pytest.mark.parametrize(
    "changed", ["first\xa0", "\xa0first", "first\x85", "first\x1f", "\tfirst", "FIRST", "firs"]
)
def test_a_token_is_compared_as_it_was_sent(changed: str) -> None:
    headers = {"authorization": f"Bearer {changed}".encode("latin-1")}
    assert ask(a_server(config=KEYS), "GET", "/v1/models", headers=headers).status_code == 401


def test_two_tokens_are_none() -> None:
    headers = [("authorization", "Bearer first"), ("Authorization", "Bearer first")]
    assert ask(a_server(config=KEYS), "GET", "/v1/models", headers=headers).status_code == 401


def test_health_needs_no_key() -> None:
    assert ask(a_server(config=KEYS), "GET", "/health").status_code == 200


@get("/shown", opt=ADMIN_TOO, sync_to_thread=False)
def shown(client: NamedDependency[Client]) -> Client:
    return client


@get("/open", opt=PUBLIC, sync_to_thread=False)
def open_to_all(client: NamedDependency[Client]) -> Client:
    return client


def a_server_with_both_kinds_of_keys() -> AppState:
    plugins = a_server_with(shown, open_to_all).plugins
    return a_server(plugins=plugins, config={**KEYS, "admin_keys": ApiKeys(("admin",), "--admin-key")})


@pytest.mark.parametrize(("key", "sees_all"), [("first", False), ("admin", True)])
def test_a_route_may_take_keys_of_both_kinds(key: str, sees_all: bool) -> None:
    server = a_server_with_both_kinds_of_keys()
    response = ask(server, "GET", "/shown", headers={"authorization": f"Bearer {key}"})
    assert (response.status_code, response.json()["sees_all"]) == (200, sees_all)
    assert ask(server, "GET", "/shown", headers={"authorization": "Bearer no"}).status_code == 401
    assert ask(server, "GET", "/shown").status_code == 401


def test_a_route_may_need_no_key_and_then_knows_none() -> None:
    server = a_server_with_both_kinds_of_keys()
    response = ask(server, "GET", "/open", headers={"authorization": "Bearer admin"})
    assert (response.status_code, response.json()["sees_all"]) == (200, False)
    assert response.json()["name"].startswith("ip:")


def test_without_keys_everybody_sees_all() -> None:
    assert ask(a_server_with(shown), "GET", "/shown").json()["sees_all"] is True
