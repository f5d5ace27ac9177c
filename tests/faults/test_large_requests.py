"""Requests and responses of one client that are much work for the server."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
import support.logprob_plugin
from support.fault_server import options, wait_until
from support.fault_table import Seen, fault
from support.http_server import Server, serving

from fllm.testing.echo import echo_model

KEYS = ("greedy", "other")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server with a key for each of two clients."""
    model = echo_model(tmp_path_factory.mktemp("models") / "model")
    with serving(model, *options(), *(word for key in KEYS for word in ("--api-key", key))) as running:
        yield running


def complete(server: Server, **body: object) -> httpx.Response:
    """Send a completion request of the client ``other``."""
    body = {"model": "m", "prompt": "hello", "max_tokens": 1, **body}
    headers = {"authorization": "Bearer other"}
    return httpx.post(f"{server.api}/completions", json=body, headers=headers, timeout=60)


def post(server: Server, body: bytes) -> socket.socket:
    """Send a completion request of the client ``greedy``; return its connection."""
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port))
    headers = f"Host: x\r\nAuthorization: Bearer greedy\r\nContent-Length: {len(body)}"
    head = f"POST /v1/completions HTTP/1.1\r\n{headers}\r\nContent-Type: application/json\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


@fault(
    "Clients",
    "One client sends 40 requests of 2,000 prompts each, which are much work to tokenize",
    must="Another client's requests are answered meanwhile; if the client leaves, the work ends",
)
def test_prompts_are_tokenized_in_turns(server: Server, seen: Seen) -> None:
    body = msgspec.json.encode({"model": "m", "prompt": ["hello there " * 100] * 2000, "max_tokens": 1})
    with ExitStack() as connections:
        greedy = [connections.enter_context(post(server, body)) for _ in range(40)]
        for _ in range(5):
            assert complete(server).status_code == 200
        assert complete(server, prompt=["hello there " * 30] * 20).status_code == 200
        answered, _, _ = select.select(greedy, [], [], 0)
    assert len(answered) <= 1, f"{len(answered)} requests were tokenized before that of another client"
    wait_until(lambda: server.log().count("/v1/completions 499 ") > 30, "the work for clients that left ends")
    seen(
        f"6 requests of the other were answered before {len(answered)} of the 40; then these left, and ended"
    )


@pytest.fixture(scope="module")
def logprob_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server whose backend returns log-probabilities at once."""
    model = echo_model(tmp_path_factory.mktemp("models") / "model")
    plugin = Path(support.logprob_plugin.__file__)
    with serving(model, "--plugin", plugin, "--backend", "logprob") as running:
        yield running


@fault(
    "Clients",
    "A request of 100 bytes asks for 8 million log-probabilities",
    must="It is rejected with the limit, before anything is generated",
)
@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_are_bounded(*, stream: bool, logprob_server: Server, seen: Seen) -> None:
    body = {"n": 128, "logprobs": 20, "max_tokens": 3000, "stream": stream}
    response = complete(logprob_server, **body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "logprobs"
    assert "the maximum is 262144" in response.json()["error"]["message"]
    seen("400: " + response.json()["error"]["message"])


@fault(
    "Clients",
    "A response has as many log-probabilities of its prompt as are allowed",
    must="It is encoded in pieces, and the server does other work between them",
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_large_response_is_encoded_in_pieces(*, stream: bool, logprob_server: Server, seen: Seen) -> None:
    large = {"prompt": "a" * 12_000, "echo": True, "logprobs": 20, "max_tokens": 1, "stream": stream}
    httpx.get(f"{logprob_server.url}/busy")
    response = complete(logprob_server, **large)
    busy = httpx.get(f"{logprob_server.url}/busy").json()
    assert response.status_code == 200
    assert len(response.content) > 2_000_000
    assert busy["longest"] < busy["total"] / 4
    seen(f"{busy['total']:.2f} s of work, of which {busy['longest']:.2f} s without a pause")


@fault(
    "Clients",
    "128 choices have few log-probabilities each, and as many as are allowed together",
    must="They are encoded in pieces, and the server does other work between them",
)
def test_many_choices_are_encoded_in_pieces(logprob_server: Server, seen: Seen) -> None:
    messages = [{"role": "user", "content": "a"}]
    body = {
        "model": "m",
        "messages": messages,
        "logprobs": True,
        "top_logprobs": 20,
        "n": 128,
        "max_tokens": 64,
    }
    httpx.get(f"{logprob_server.url}/busy")
    response = httpx.post(f"{logprob_server.api}/chat/completions", json=body, timeout=60)
    busy = httpx.get(f"{logprob_server.url}/busy").json()
    assert response.status_code == 200
    assert len(response.content) > 7_000_000
    assert busy["longest"] < busy["total"] / 2
    seen(f"{busy['total']:.2f} s of work, of which {busy['longest']:.2f} s without a pause")
