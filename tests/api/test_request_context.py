"""The state of one request, and its id."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from litestar.types import Message, Scope
from support.api_fakes import a_server, ask, chat

from fllm_api.api_keys import ApiKeys
from fllm_api.request_context import (
    MAX_REQUEST_ID_LENGTH,
    choose_request_id,
    context_of,
    record_response_start,
)


def scope(*headers: tuple[bytes, bytes], client: tuple[str, int] | None = ("1.2.3.4", 5)) -> Scope:
    return cast(Scope, {"type": "http", "headers": list(headers), "client": client, "state": {}})


def test_a_request_has_one_context() -> None:
    request = scope()
    assert context_of(request) is context_of(request)
    assert context_of(request) is not context_of(scope())


def test_a_copied_scope_shares_the_context() -> None:
    request = scope()
    copied = cast(Scope, dict(request))
    assert context_of(copied) is context_of(request)


@pytest.mark.parametrize(("client", "name"), [(("1.2.3.4", 5), "ip:1.2.3.4"), (None, "ip:unknown")])
def test_the_client_is_an_address_until_it_is_authenticated(client: Any, name: str) -> None:
    assert context_of(scope(client=client)).client == name


@pytest.mark.parametrize("name", ["tracker", "deadline", "slot"])
def test_what_a_middleware_has_not_set_cannot_be_read(name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(context_of(scope()), name)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (b"mine", "mine"),
        (b"a" * 1000, "a" * MAX_REQUEST_ID_LENGTH),
        (b"", None),
        (b"two words", None),
        (b"line\nbreak", None),
        ("\u00e9".encode(), None),
    ],
)
def test_a_valid_id_of_the_client_is_used(given: bytes, used: str | None) -> None:
    chosen = choose_request_id([(b"host", b"a"), (b"x-request-id", given)])
    assert chosen == used if used else len(chosen) == 32


def test_without_the_header_every_request_has_a_new_id() -> None:
    assert choose_request_id([]) != choose_request_id([])


def test_the_response_carries_the_id_and_its_status_is_recorded() -> None:
    request = scope((b"x-request-id", b"mine"))
    message = cast(Message, {"type": "http.response.start", "status": 418, "headers": []})
    asyncio.run(record_response_start(message, request))
    assert cast(Any, message)["headers"] == [(b"x-request-id", b"mine")]
    assert context_of(request).status == 418


@pytest.mark.parametrize("path", ["/v1/models", "/nowhere", "/schema/openapi.json"])
def test_every_response_has_a_request_id(path: str) -> None:
    server = a_server()
    first, second = (ask(server, "GET", path).headers["x-request-id"] for _ in range(2))
    assert first != second
    given = ask(server, "GET", path, headers={"x-request-id": "mine"})
    assert given.headers["x-request-id"] == "mine"


def test_streams_and_errors_have_a_request_id_too() -> None:
    server = a_server(config={"keys": ApiKeys(["secret"])})
    assert chat(server).headers["x-request-id"]
    assert chat(a_server(), stream=True).headers["x-request-id"]
