"""Signals, and an engine that dies, with the default model."""

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
def server_to_kill() -> Iterator[Server]:
    """Run a server whose engine the tests may kill."""
    with serving("--max-model-len", "4096") as running:
        yield running


@contextmanager
def slow_stream(server: Server) -> Iterator[Iterator[str]]:
    """Open a long stream; yield its lines after the first one."""
    body = {"model": "m", "prompt": "Once", "max_tokens": 3500, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.api}/completions", json=body, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        yield lines


def wait_for_health(server: Server, status: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if httpx.get(f"{server.url}/health").status_code == status:
            return
        time.sleep(0.05)
    raise AssertionError(f"/health never returned {status}:\n{server.log()}")


def test_an_engine_that_dies_fails_its_requests_and_is_restarted(server_to_kill: Server) -> None:
    with slow_stream(server_to_kill) as lines:
        [engine] = children(server_to_kill)
        os.kill(engine, signal.SIGKILL)
        rest = [line for line in lines if line]
    assert any('"error"' in line for line in rest[-2:]), rest[-2:]
    assert rest[-1] == "data: [DONE]"
    health = httpx.get(f"{server_to_kill.url}/health")
    assert (health.status_code, health.json()["error"]["type"]) == (503, "server_error")
    refused = httpx.post(f"{server_to_kill.api}/completions", json={"model": "m", "prompt": "Once"})
    assert refused.status_code == 503
    wait_for_health(server_to_kill, 200)
    body = {"model": "m", "prompt": "Once", "max_tokens": 2}
    assert httpx.post(f"{server_to_kill.api}/completions", json=body, timeout=60).status_code == 200


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_accepted_requests_finish_and_exits_0(how: signal.Signals) -> None:
    with serving() as server:
        body = {"model": "m", "prompt": "Once upon a time", "max_tokens": 300, "ignore_eos": True}
        responses: list[httpx.Response] = []
        request = threading.Thread(
            target=lambda: responses.append(httpx.post(f"{server.api}/completions", json=body, timeout=60))
        )
        request.start()
        time.sleep(0.7)
        [engine] = children(server)
        assert server.stop(how) == 0, server.log()
        request.join()
        assert responses[0].json()["usage"]["completion_tokens"] == 300
        assert not os.path.exists(f"/proc/{engine}")
