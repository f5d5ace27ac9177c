"""Large request bodies: what they hold together, and what other clients notice of them."""

from __future__ import annotations

import resource
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from support.fault_server import options, wait_until
from support.fault_table import Seen, fault
from support.http_server import Server, serving

from fllm.testing.echo import echo_model

MIB = 2**20
KEYS = ("greedy", "other")
SLOW = 24
LARGE = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with 64 MiB for all bodies and a key for each of two clients."""
    model = echo_model(tmp_path_factory.mktemp("models") / "model")
    keys = [word for key in KEYS for word in ("--api-key", key)]
    limits = ("--max-body-bytes", str(16 * MIB), "--max-body-memory", str(64 * MIB))
    with serving(model, *options("inside"), *keys, *limits) as running:
        complete(running, "greedy", user="x" * 8 * MIB)
        complete(running, "greedy", prompt="x" * 8 * MIB)
        yield running


def memory(server: Server) -> float:
    """Return the resident memory of the server process in MiB."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


@contextmanager
def highest_memory(server: Server) -> Iterator[list[float]]:
    """Yield a list that holds the highest memory once the block has ended."""
    over = threading.Event()
    seen = [memory(server)]

    def watch() -> None:
        while not over.wait(0.01):
            seen[0] = max(seen[0], memory(server))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def complete(server: Server, key: str, **body: object) -> httpx.Response:
    """Send a completion request."""
    body = {"model": "m", "prompt": "hello", "max_tokens": 1, **body}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{server.api}/completions", json=body, headers=headers, timeout=60)


def send_all_but_the_end(server: Server, body: bytes, stack: ExitStack) -> int:
    """Send the bodies of `SLOW` requests without their last bytes; return how much the server accepts."""
    address = urlsplit(server.url)
    head = f"Host: x\r\nAuthorization: Bearer greedy\r\nContent-Length: {len(body) + 9}"
    data = (
        f"POST /v1/completions HTTP/1.1\r\n{head}\r\nContent-Type: application/json\r\n\r\n".encode() + body
    )
    unsent = {}
    for _ in range(SLOW):
        end = stack.enter_context(socket.create_connection((address.hostname, address.port)))
        end.setblocking(False)
        unsent[end] = memoryview(data)
    while unsent and (writable := select.select([], [*unsent], [], 1.5)[1]):
        for end in writable:
            unsent[end] = unsent[end][end.send(unsent[end][:MIB]) :]
            if not unsent[end]:
                del unsent[end]
    return SLOW - len(unsent)


@fault(
    "Clients",
    f"One client sends {SLOW} bodies of 8 MiB without their end, where all bodies may hold 64 MiB",
    must="Only what fits into its share is read; other clients' large requests are served meanwhile",
)
def test_unfinished_bodies_are_bounded(server: Server, seen: Seen) -> None:
    before = memory(server)
    with ExitStack() as stack:
        accepted = send_all_but_the_end(server, b'{"x":"' + b"a" * 8 * MIB, stack)
        held = memory(server) - before
        assert held < 64, f"{held:.0f} MiB"
        assert accepted < SLOW / 2
        for _ in range(3):
            assert complete(server, "other", user="x" * 4 * MIB).status_code == 200
    assert complete(server, "greedy", user="x" * 8 * MIB).status_code == 200
    wait_until(lambda: memory(server) < before + 32, f"less than {before + 32:.0f} MiB again")
    seen(f"{held:.0f} MiB at most; the other's requests of 4 MiB were served; then the memory was free again")


@fault(
    "Clients",
    f"{LARGE} requests at once with a prompt of 8 MiB, which takes four times as much once it is decoded",
    must="They are decoded one after another; the memory returns to the system",
)
def test_decoded_bodies_are_bounded(server: Server, seen: Seen) -> None:
    before = memory(server)
    prompt = "a" * 8 * MIB + "\U0001f600"
    responses: list[httpx.Response] = []

    def send() -> None:
        responses.append(complete(server, "greedy", prompt=prompt))

    with highest_memory(server) as highest:
        threads = [threading.Thread(target=send) for _ in range(LARGE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    held = highest[0] - before
    assert [response.json()["error"]["code"] for response in responses] == ["context_length_exceeded"] * LARGE
    assert held < 160, f"{held:.0f} MiB"
    wait_until(lambda: memory(server) < before + 32, f"less than {before + 32:.0f} MiB again")
    seen(f"{held:.0f} MiB at most, and no more than before within seconds")


@fault(
    "Clients",
    "A prompt that can never fit into the context, of which 2 of 16 MiB are sent",
    must="400 without waiting for the rest",
)
def test_a_prompt_that_is_too_long_is_rejected_while_it_is_read(server: Server, seen: Seen) -> None:
    address = urlsplit(server.url)
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer greedy\r\n"
    fields = f"Content-Type: application/json\r\nContent-Length: {16 * MIB}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=20) as end:
        end.sendall((head + fields + '{"model": "m", "prompt": "' + "x" * 2 * MIB).encode())
        response = b""
        while b"}}" not in response and (piece := end.recv(65536)):
            response += piece
    assert response.startswith(b"HTTP/1.1 400 "), response
    assert b"context_length_exceeded" in response
    seen("400, context_length_exceeded, after 2 MiB at most")


@fault(
    "Clients",
    f"{LARGE} requests whose body of 8 MiB is not valid JSON, on connections that stay open",
    must="Nothing of their bodies is kept",
)
def test_rejected_bodies_are_forgotten(server: Server, seen: Seen) -> None:
    before = memory(server)
    headers = {"authorization": "Bearer greedy", "content-type": "application/json"}
    with ExitStack() as stack:
        for _ in range(LARGE):
            client = stack.enter_context(httpx.Client(headers=headers, timeout=60))
            response = client.post(f"{server.api}/completions", content=b'"' + b"x" * 8 * MIB)
            assert response.status_code == 400
        wait_until(lambda: memory(server) < before + 32, f"less than {before + 32:.0f} MiB again")
        kept = memory(server) - before
    assert complete(server, "other").status_code == 200
    seen(f"{max(kept, 0):.0f} MiB more than before, with all connections open")
