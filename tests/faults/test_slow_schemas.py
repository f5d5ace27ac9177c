"""Clients whose schemas take long to compile, next to another one, on the embedded model."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from support.fault_table import Seen, fault
from support.http_server import Server, serving

KEYS = ("normal", "hostile", "accomplice")
LEFT = 110
HELD = 90
MAX_ANSWERED = 30
"""How many of those held may be answered before the other client; without turns, all of them are."""


def body(schema: object) -> dict[str, Any]:
    """Return the body of a chat request with a schema."""
    json_schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    messages = [{"role": "user", "content": "hi"}]
    return {"model": "m", "messages": messages, "max_tokens": 1, "response_format": json_schema}


def slow(name: str) -> dict[str, Any]:
    """Return a schema that takes more than the 0.8 s of processor time for which a schema is compiled."""
    properties = {f"{name}_{number}": {"type": "string"} for number in range(600)}
    return body({"type": "object", "properties": properties})


def ask(server: Server, key: str, name: str) -> float:
    """Send a trivial schema that is not in the cache. Return the seconds until the response."""
    asked = body({"type": "object", "properties": {name: {"type": "integer"}}, "required": [name]})
    start = time.monotonic()
    url, headers = f"{server.api}/chat/completions", {"Authorization": f"Bearer {key}"}
    response = httpx.post(url, json=asked, headers=headers, timeout=60)
    assert response.status_code == 200, response.text
    return time.monotonic() - start


def post(server: Server, key: str, asked: dict[str, Any]) -> socket.socket:
    """Send a chat request; return its connection."""
    data = msgspec.json.encode(asked)
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port))
    headers = f"Host: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(data)}"
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{headers}\r\nContent-Type: application/json\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run one server with three keys for all these faults. Its compilers have started."""
    keys = (word for key in KEYS for word in ("--api-key", key))
    with serving("--served-model-name", "m", "--limit", f"concurrency={HELD // 2}", *keys) as running:
        ask(running, "normal", "first")
        yield running


@fault(
    "Grammars",
    f"One client sends {LEFT} slow schemas, one after the other, and leaves each after 60 ms",
    must="What nobody waits for is not compiled; the schemas of another client take what they take alone",
)
def test_compilations_are_abandoned_with_their_requests(server: Server, seen: Seen) -> None:
    alone = ask(server, "normal", "alone")
    for number in range(LEFT):
        with post(server, "hostile", slow(f"left{number}")):
            time.sleep(0.06)
    took = max(ask(server, "normal", f"beside{number}") for number in range(3))
    own = ask(server, "hostile", "own")
    seen(f"{took:.2f} s, {alone:.2f} s alone; the next schema of the client itself took {own:.2f} s")


@fault(
    "Grammars",
    f"{HELD} slow schemas of two clients wait to be compiled",
    must="The schemas of another client take what they take alone; those of clients that leave are dropped",
)
def test_clients_compile_in_turn(server: Server, seen: Seen) -> None:
    alone = ask(server, "normal", "again alone")
    with ExitStack() as connections:
        held = [
            connections.enter_context(post(server, KEYS[1 + number % 2], slow(f"held{number}")))
            for number in range(HELD)
        ]
        time.sleep(1)
        took = [ask(server, "normal", f"beside the others {number}") for number in range(5)]
        answered, _, _ = select.select(held, [], [], 0)
    assert len(answered) <= MAX_ANSWERED, f"{len(answered)} of {HELD} before the other client: {took}"
    own = ask(server, "hostile", "own again")
    seen(
        f"{max(took):.2f} s, {alone:.2f} s alone; {len(answered)} of the {HELD} had been answered by then; "
        f"when all had left, the next schema of one of the clients took {own:.2f} s"
    )
