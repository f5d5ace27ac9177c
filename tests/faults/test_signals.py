"""What happens to requests, and to the engine's process, when the server is told to end."""

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
from support.fault_server import ask, asking, engine, gone, options, status, stream, until
from support.fault_table import Seen, fault
from support.http_server import Server, children, command, run, serving

from fllm.testing.echo import echo_model

AT_ONCE = ("--max-num-seqs", "8", "--max-num-batched-tokens", "512")
STREAMS = 20
WHOLE = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tokenizer."""
    return echo_model(tmp_path_factory.mktemp("models") / "model")


@contextmanager
def loaded(server: Server, tokens: int) -> Any:
    """More streams and whole answers than the engine takes at once, all of them accepted."""

    def read() -> str:
        body = asking("hello", tokens=tokens, stream=True)
        return httpx.post(f"{server.api}/chat/completions", json=body, timeout=60).text

    with ThreadPoolExecutor(STREAMS + WHOLE) as pool:
        streams = [pool.submit(read) for _ in range(STREAMS)]
        answers = [pool.submit(ask, server, "hello", tokens=tokens) for _ in range(WHOLE)]
        wait_for_all(server)
        yield streams, answers


def wait_for_all(server: Server) -> None:
    """Return once the engine has them all."""

    def counted(name: str) -> float:
        page = httpx.get(f"{server.url}/metrics").text
        lines = [line for line in page.splitlines() if line[:1] != "#" and name in line]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def all_there() -> bool:
        return counted("num_requests_running") + counted("num_requests_waiting") == STREAMS + WHOLE

    until(all_there, f"all accepted\n{httpx.get(f'{server.url}/metrics').text}")


def content(events: str) -> str:
    """What the chunks of a stream say together; those of errors have no choices."""
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
    with serving(model, *options(), *AT_ONCE, "--enable-metrics") as server:
        with loaded(server, tokens=50) as (streams, answers):
            child = engine(server)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: status(server, "/ready") == 503, "it drains", 5)
            refused = ask(server, "hello")
            healthy = status(server)
            whole = [each.result() for each in answers]
            streamed = texts(streams)
        code = server.process.wait(30)
    assert (refused.status_code, refused.headers["retry-after"], healthy) == (503, "1", 200)
    assert [each.json()["usage"]["completion_tokens"] for each in whole] == [50] * WHOLE
    assert [content(text) for text in streamed] == ["a" * 50] * STREAMS
    assert all(text.endswith("data: [DONE]") for text in streamed)
    assert code == 0, server.log()
    assert gone(child)
    seen(f"{STREAMS + WHOLE} of {STREAMS + WHOLE} requests finished; a new one got 503; exit status 0")


@fault(
    "Shutdown",
    "SIGTERM under load, and --shutdown-timeout ends first",
    must="Streams end with an error event, whole responses with 503, none silently; exit status 0",
)
def test_a_drain_that_takes_too_long_ends_with_errors(model: Path, seen: Seen) -> None:
    limit = ("--shutdown-timeout", "0.5")
    with serving(model, *options(), *AT_ONCE, *limit, "--enable-metrics") as server:
        with loaded(server, tokens=3000) as (streams, answers):
            child = engine(server)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            whole = [each.result().status_code for each in answers]
            streamed = texts(streams)
        code = server.process.wait(30)
        took = time.monotonic() - began
    assert whole == [503] * WHOLE
    ends = [text.endswith("data: [DONE]") and "the server is shutting down" in text for text in streamed]
    refused = ['"code":"unavailable"' in text for text in streamed]
    assert all(end or before for end, before in zip(ends, refused, strict=True)), streamed
    assert code == 0, server.log()
    assert gone(child)
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
        until(lambda: status(server, "/ready") == 503, "it drains", 5)
        began = time.monotonic()
        assert server.stop(signal.SIGTERM, timeout=5) == 128 + signal.SIGTERM
        ended = time.monotonic() - began
        orphan = until(lambda: gone(child), "the engine's process is gone", 10)
    seen(f"exit status 143 after {ended:.1f} s; the engine process was gone {orphan:.1f} s later")


@fault(
    "Shutdown",
    "SIGTERM while the model loads",
    must="Exit status 0; no engine process is left",
)
def test_sigterm_while_it_loads(seen: Seen) -> None:
    with subprocess.Popen(
        command("serve", "--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        server = Server(process, "")
        until(lambda: bool(children(server)), "the engine's process is there")
        child = engine(server)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, log = process.communicate(timeout=30)
        took = time.monotonic() - began
    assert (process.returncode, out) == (0, ""), log
    assert gone(child)
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
