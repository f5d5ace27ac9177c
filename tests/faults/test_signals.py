"""Requests and the engine process when the server receives SIGTERM, and a port in use."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.fault_server import ask, chat_body, engine, has_exited, options, status, stream, wait_until
from support.fault_table import Seen, fault
from support.http_server import Server, children, command, run, serving

from fllm.testing.echo import echo_model

BATCH_LIMITS = ("--max-num-seqs", "8", "--max-num-batched-tokens", "512")
STREAMS = 20
WHOLE = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a tokenizer."""
    return echo_model(tmp_path_factory.mktemp("models") / "model")


@contextmanager
def loaded(server: Server, tokens: int) -> Any:
    """Send more streams and whole responses than run at a time; yield once all are accepted."""

    def read() -> str:
        body = chat_body("hello", tokens=tokens, stream=True)
        return httpx.post(f"{server.api}/chat/completions", json=body, timeout=60).text

    with ThreadPoolExecutor(STREAMS + WHOLE) as pool:
        streams = [pool.submit(read) for _ in range(STREAMS)]
        responses = [pool.submit(ask, server, "hello", tokens=tokens) for _ in range(WHOLE)]
        wait_for_all(server)
        yield streams, responses


def wait_for_all(server: Server) -> None:
    """Return once the engine has accepted all requests."""

    def counted(name: str) -> float:
        page = httpx.get(f"{server.url}/metrics").text
        lines = [line for line in page.splitlines() if line[:1] != "#" and name in line]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def all_accepted() -> bool:
        return counted("num_requests_running") + counted("num_requests_waiting") == STREAMS + WHOLE

    wait_until(all_accepted, f"all accepted\n{httpx.get(f'{server.url}/metrics').text}")


def content(events: str) -> str:
    """Return the concatenated content of a stream; error events have no choices."""
    chunks = [json.loads(event[6:]) for event in events.split("\n\n")[:-1]]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def texts(streams: list[Future[str]]) -> list[str]:
    return [each.result().rstrip() for each in streams]


@fault(
    "Shutdown",
    "SIGTERM under load: 20 streams and 8 whole responses; 8 requests run and 20 wait",
    must="No request is lost; new ones get 503 with Retry-After; /ready is 503, /health 200; exit status 0",
)
def test_sigterm_under_load_loses_nothing(model: Path, seen: Seen) -> None:
    with serving(model, *options(), *BATCH_LIMITS, "--enable-metrics") as server:
        with loaded(server, tokens=50) as (streams, responses):
            child = engine(server)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: status(server, "/ready") == 503, "it drains", 5)
            rejected = ask(server, "hello")
            healthy = status(server)
            whole = [each.result() for each in responses]
            streamed = texts(streams)
        code = server.process.wait(30)
    assert (rejected.status_code, rejected.headers["retry-after"], healthy) == (503, "1", 200)
    assert [each.json()["usage"]["completion_tokens"] for each in whole] == [50] * WHOLE
    assert [content(text) for text in streamed] == ["a" * 50] * STREAMS
    assert all(text.endswith("data: [DONE]") for text in streamed)
    assert code == 0, server.log()
    assert has_exited(child)
    seen(f"{STREAMS + WHOLE} of {STREAMS + WHOLE} requests finished; a new one got 503; exit status 0")


@fault(
    "Shutdown",
    "SIGTERM under load, and --shutdown-timeout ends first",
    must="Streams end with an error event, whole responses with 503, none silently; exit status 0",
)
def test_a_drain_that_times_out_ends_requests_with_errors(model: Path, seen: Seen) -> None:
    limit = ("--shutdown-timeout", "0.5")
    with serving(model, *options(), *BATCH_LIMITS, *limit, "--enable-metrics") as server:
        with loaded(server, tokens=3000) as (streams, responses):
            child = engine(server)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            whole = [each.result().status_code for each in responses]
            streamed = texts(streams)
        code = server.process.wait(30)
        took = time.monotonic() - began
    assert whole == [503] * WHOLE
    ends = [text.endswith("data: [DONE]") and "the server is shutting down" in text for text in streamed]
    rejected = ['"code":"unavailable"' in text for text in streamed]
    assert all(end or before for end, before in zip(ends, rejected, strict=True)), streamed
    assert code == 0, server.log()
    assert has_exited(child)
    seen(
        f"{sum(ends)} streams ended with an error event; {STREAMS - sum(ends)} streams that had not begun and"
        f" {WHOLE} whole responses ended with 503; exit status 0 after {took:.1f} s"
    )


@fault(
    "Shutdown",
    "SIGTERM twice during a stream",
    must="The server exits immediately with 128 + 15; no engine process is left",
)
def test_a_second_sigterm_ends_it_at_once(model: Path, seen: Seen) -> None:
    with serving(model, *options()) as server, stream(server, "hello"):
        child = engine(server)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: status(server, "/ready") == 503, "it drains", 5)
        began = time.monotonic()
        assert server.stop(signal.SIGTERM, timeout=5) == 128 + signal.SIGTERM
        ended = time.monotonic() - began
        orphan = wait_until(lambda: has_exited(child), "the engine's process is gone", 10)
    seen(f"exit status 143 after {ended:.1f} s; the engine process was gone {orphan:.1f} s later")


@fault(
    "Shutdown",
    "SIGTERM while the model loads",
    must="Exit status 0; no engine process is left",
)
def test_sigterm_while_the_model_loads(seen: Seen) -> None:
    with subprocess.Popen(
        command("serve", "--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        server = Server(process, "")
        wait_until(lambda: bool(children(server)), "the engine's process is there")
        child = engine(server)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, log = process.communicate(timeout=30)
        took = time.monotonic() - began
    assert (process.returncode, out) == (0, ""), log
    assert has_exited(child)
    seen(f"exit status 0 after {took:.1f} s; no process was left")


@fault(
    "Network",
    "The port is in use",
    must="One line names it before the model loads; exit status 2",
)
def test_a_busy_port_is_one_line_before_the_model_loads(seen: Seen) -> None:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run("serve", "--port", port)
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert port in line
    seen(f"exit status 2: {line.replace(port, 'N')}")
