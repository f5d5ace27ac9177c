"""A client whose sequences fill the batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from support.fault_server import chat_body, options
from support.fault_table import Seen, fault
from support.http_server import Server, serving

from fllm.testing.echo import echo_model

PLACES = 2
LONG, SHORT = 3500, 4
"""Tokens of the sequences that fill the batch, which take more than half a minute, and of the other one."""
PATIENCE = 15.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = echo_model(tmp_path_factory.mktemp("models") / "model")
    keys = ("--api-key", "normal-key", "--api-key", "hostile-key")
    with serving(model, *options(), "--max-num-seqs", str(PLACES), "--max-queue", "16", *keys) as running:
        yield running


@fault(
    "Clients",
    f"The long sequences of one client fill the batch ({PLACES} sequences here)",
    must="Another client's request starts at once; the sequence whose place it takes continues afterwards",
)
def test_a_client_that_fills_the_batch(server: Server, seen: Seen) -> None:
    url, hostile = f"{server.api}/chat/completions", {"authorization": "Bearer hostile-key"}
    body = chat_body("hello", tokens=LONG, stream=True)
    with ExitStack() as streams:
        lines = []
        for _ in range(PLACES):
            response = streams.enter_context(
                httpx.stream("POST", url, json=body, headers=hostile, timeout=60)
            )
            lines.append(response.iter_lines())
            next(lines[-1])
        start = time.monotonic()
        normal = {"authorization": "Bearer normal-key"}
        answered = httpx.post(url, json=chat_body("hello", tokens=SHORT), headers=normal, timeout=PATIENCE)
        took = time.monotonic() - start
        assert answered.json()["choices"][0]["message"]["content"] == "a" * SHORT
        for each in lines:  # more than what was generated before
            events = (line for line in each if '"content":"a' in line)
            assert len([next(events) for _ in range(20)]) == 20
    seen(f"it was answered after {took:.2f} s; the others went on")


@fault(
    "Clients",
    "One client sends as many sequences as the server holds, in one request",
    must="Another client's request is admitted and answered",
)
def test_a_client_that_fills_the_queue(server: Server, seen: Seen) -> None:
    url = f"{server.api}/completions"
    capacity = 16 + PLACES
    body = {"model": "m", "prompt": ["hello"] * capacity, "max_tokens": LONG, "stream": True}
    hostile, normal = ({"authorization": f"Bearer {name}-key"} for name in ("hostile", "normal"))
    with httpx.stream("POST", url, json=body, headers=hostile, timeout=60) as response:
        assert response.status_code == 200, response.read()
        more = httpx.post(url, json={**body, "prompt": "hello"}, headers=hostile, timeout=PATIENCE)
        assert more.status_code == 503, more.text
        short = {"model": "m", "prompt": "hello", "max_tokens": SHORT}
        answered = httpx.post(url, json=short, headers=normal, timeout=PATIENCE)
        assert answered.status_code == 200, answered.text
    seen("the request was answered; one more of the same client got a 503")
