"""The default model's server: what a signal does, and what happens when the engine dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from support.http_server import Server, children, serving


@pytest.fixture(scope="module")
def mortal() -> Iterator[Server]:
    """A server that tests may hurt."""
    with serving("--max-model-len", "4096") as running:
        yield running


@contextmanager
def slow_stream(server: Server) -> Iterator[Iterator[str]]:
    """The lines of a stream that goes on for long; the first has been read."""
    body = {"model": "m", "prompt": "Once", "max_tokens": 3500, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.api}/completions", json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        yield lines


def wait_for_health(server: Server, status: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if httpx.get(f"{server.url}/health").status_code == status:
            return
        time.sleep(0.05)
    raise AssertionError(f"/health never answered {status}:\n{server.log()}")


def test_an_engine_that_dies_ends_its_requests_and_is_started_again(mortal: Server) -> None:
    with slow_stream(mortal) as lines:
        [engine] = children(mortal)
        os.kill(engine, signal.SIGKILL)
        rest = [line for line in lines if line]
    assert any('"error"' in line for line in rest[-2:]), rest[-2:]
    assert rest[-1] == "data: [DONE]"
    health = httpx.get(f"{mortal.url}/health")
    assert (health.status_code, health.json()["error"]["type"]) == (503, "server_error")
    refused = httpx.post(f"{mortal.api}/completions", json={"model": "m", "prompt": "Once"})
    assert refused.status_code == 503
    wait_for_health(mortal, 200)
    body = {"model": "m", "prompt": "Once", "max_tokens": 2}
    assert httpx.post(f"{mortal.api}/completions", json=body, timeout=60).status_code == 200


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_accepted_requests_finish_and_exits_0(how: signal.Signals) -> None:
    with serving() as server:
        body = {"model": "m", "prompt": "Once upon a time", "max_tokens": 300, "ignore_eos": True}
        answers: list[httpx.Response] = []
        request = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{server.api}/completions", json=body, timeout=60))
        )
        request.start()
        time.sleep(0.7)
        [engine] = children(server)
        assert server.stop(how) == 0, server.log()
        request.join()
        assert answers[0].json()["usage"]["completion_tokens"] == 300
        assert not os.path.exists(f"/proc/{engine}")
