"""Slow, idle, numerous and hostile clients; one server for all tests."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.ambiguous_texts import AMBIGUOUS
from support.fault_server import assert_clean_exit, assert_healthy, chat_body, options, wait_until
from support.fault_table import Seen, fault
from support.http_server import Server, serving

from fllm.testing.echo import echo_model

IDLE = 1500
TRICKLING = 100
STALLED = 20
CONNECTIONS = 2000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = echo_model(tmp_path_factory.mktemp("models") / "model")
    limits = ("--read-timeout", "2", "--write-timeout", "2", "--max-connections", str(CONNECTIONS))
    # This backend responds as fast as the event loop runs.
    with serving(model, *options("inside"), *limits) as running:
        yield running
        assert_clean_exit(running)


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    """Raise the limit of open files; yield a stack that closes its connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        yield stack


def connect(server: Server, *, buffer: int = 0) -> socket.socket:
    address = urlsplit(server.url)
    end = socket.socket()
    if buffer:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    end.settimeout(20)
    end.connect(("127.0.0.1", address.port))
    return end


def read_to_end(end: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    data = b""
    with suppress(ConnectionResetError):
        while piece := end.recv(65536):
            data += piece
    return data


def memory(server: Server) -> float:
    """Return the resident memory of the server process in megabytes."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def files(server: Server) -> int:
    """Return the number of open file descriptors of the server process."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def chat_request(text: str, tokens: int) -> bytes:
    body = json.dumps(chat_body(text, tokens=tokens, stream=True)).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@fault(
    "Connections",
    f"Slowloris: {TRICKLING} clients send their headers one byte at a time, {TRICKLING} their bodies",
    must="Other clients are served; each slow one gets 408 at the timeout, and its connection is closed",
)
def test_slowloris(server: Server, connections: ExitStack, seen: Seen) -> None:
    ends = [connections.enter_context(connect(server)) for _ in range(2 * TRICKLING)]
    for i, end in enumerate(ends):
        end.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX: " if i % 2 else chat_request("hello", 4)[:-60])
    began = time.monotonic()
    while time.monotonic() < began + 1.2:
        for end in ends:
            end.sendall(b" ")
        assert_healthy(server)
    responses = [read_to_end(end) for end in ends]
    took = time.monotonic() - began
    assert all(response.startswith(b"HTTP/1.1 408 ") for response in responses), set(responses)
    assert all(b'{"error":{' in response and b"x-request-id: " in response for response in responses)
    seen(f"{len(ends)} of {len(ends)} got 408 after {took:.1f} s (timeout 2 s); other clients were served")


@fault(
    "Connections",
    f"{STALLED} clients request long streams and do not read them",
    must="Their memory is bounded; each is aborted after the timeout, with a line in the log",
)
def test_clients_that_do_not_read(server: Server, connections: ExitStack, seen: Seen) -> None:
    assert_healthy(server)
    before = memory(server)
    ends = [connections.enter_context(connect(server, buffer=2048)) for _ in range(STALLED)]
    for end in ends:
        end.sendall(chat_request("hello", 4000))
    most = before

    def all_aborted() -> bool:
        nonlocal most
        most = max(most, memory(server))
        return server.log().count("the client read nothing for 2 s") == STALLED

    took = wait_until(all_aborted, "all aborted\n" + server.log())
    assert_healthy(server)
    assert most - before < STALLED * 1.5
    seen(
        f"all were aborted after {took:.1f} s (timeout 2 s); at most {(most - before) / STALLED:.2f} MB each"
    )


@fault(
    "Connections",
    f"{IDLE} idle connections",
    must="The server keeps serving; each connection is closed at the timeout; no file descriptor leaks",
)
def test_many_idle_connections(server: Server, connections: ExitStack, seen: Seen) -> None:
    before, held = files(server), memory(server)
    ends = [connections.enter_context(connect(server)) for _ in range(IDLE)]
    began = time.monotonic()
    assert_healthy(server)
    response_time = time.monotonic() - began
    cost = (memory(server) - held) * 1000 / IDLE
    assert [read_to_end(end) for end in ends] == [b""] * IDLE
    wait_until(lambda: files(server) <= before, "all files closed")
    seen(f"responses within {response_time:.1f} s; {cost:.0f} kB per connection; all were closed")


@fault(
    "Connections",
    f"{CONNECTIONS + 300} connections where {CONNECTIONS} are allowed",
    must="The connections that have been idle longest are closed; the server keeps serving",
)
def test_more_connections_than_allowed(server: Server, connections: ExitStack, seen: Seen) -> None:
    ends = [connections.enter_context(connect(server)) for _ in range(CONNECTIONS + 300)]
    assert_healthy(server)
    assert read_to_end(ends[0]) == b""
    assert files(server) < CONNECTIONS + 100
    seen("the longest idle connections were closed; new ones were served")


@fault(
    "Connections",
    f"{len(AMBIGUOUS)} kinds of malformed requests, including request smuggling",
    must="400 in the error envelope, with a request id; the connection is closed",
)
def test_malformed_requests(server: Server, connections: ExitStack, seen: Seen) -> None:
    for name, data in AMBIGUOUS.items():
        with connect(server) as end:
            end.sendall(data)
            response = read_to_end(end)
        assert response.startswith(b"HTTP/1.1 400 "), (name, response)
        assert response.count(b"HTTP/1.1 ") == 1, (name, response)
        assert b"x-request-id: " in response, (name, response)
    assert_healthy(server)
    seen(f"{len(AMBIGUOUS)} of {len(AMBIGUOUS)} got 400, and the server kept serving")
