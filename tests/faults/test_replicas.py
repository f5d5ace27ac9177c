"""Replicas that end, hang or send what nobody understands, and others on the port of engines."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import pytest
from support.fault_server import ask, assert_clean_exit, chat_body, options, wait_until
from support.fault_table import Seen, fault
from support.http_server import Server, children, serving

from fllm.testing.echo import echo_model

PLACEMENT = Path(__file__).parents[1] / "support" / "remote_placement.py"
STREAMS = 8
TOKENS = 120


@pytest.fixture(scope="module")
def port() -> int:
    """Return a free port for engines."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Server]:
    """Run two replicas that connect over TCP; both must be ready again after each fault."""
    model = echo_model(tmp_path_factory.mktemp("models") / "model")
    placement = ("--plugin", str(PLACEMENT), "--placement", "remote", "--engine-listen", f"127.0.0.1:{port}")
    with serving(
        model, *options(), "--replicas", "2", *placement, "--engine-timeout", "2", "--enable-metrics"
    ) as running:
        yield running
        assert_clean_exit(running)


class Streams:
    """Streams that run at the same time: each must end normally, with all of its tokens."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = [0] * STREAMS
        self._texts = [""] * STREAMS
        self._ends = [""] * STREAMS
        self._threads = [threading.Thread(target=self._read, args=[n]) for n in range(STREAMS)]

    def __enter__(self) -> Streams:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: all(self._received), "all streams have begun")
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def assert_complete(self) -> None:
        assert self._ends == ["length"] * STREAMS
        assert [len(text) for text in self._texts] == [TOKENS] * STREAMS

    def _read(self, number: int) -> None:
        body = chat_body(f"stream {number}", tokens=TOKENS, stream=True)
        with httpx.stream("POST", f"{self._server.api}/chat/completions", json=body, timeout=60) as response:
            for line in response.iter_lines():
                if not line.startswith("data: {"):
                    continue
                data = msgspec.json.decode(line.removeprefix("data: "))
                choice = (data.get("choices") or [{"delta": {}}])[0]
                self._texts[number] += choice["delta"].get("content") or ""
                self._received[number] += bool(choice["delta"].get("content"))
                self._ends[number] = choice.get("finish_reason") or str(data.get("error") or "")


def ready(server: Server) -> int:
    """Return the number of replicas that are ready."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(line.startswith("furiosa_llm:replica_ready") and line.endswith(" 1.0") for line in lines)


def wait_for_both(server: Server) -> float:
    return wait_until(lambda: ready(server) == 2, f"two replicas are ready\n{server.log()}")


@fault(
    "Replicas",
    f"A replica is killed (SIGKILL) under {STREAMS} streams",
    must="No stream loses a token; the replica comes back",
)
def test_a_replica_that_is_killed(server: Server, seen: Seen) -> None:
    with Streams(server) as streams:
        os.kill(children(server)[0], signal.SIGKILL)
        wait_until(lambda: ready(server) == 1, "it is killed")
        took = wait_for_both(server)
    streams.assert_complete()
    seen(f"all {STREAMS} streams had their {TOKENS} tokens; ready again after {took:.1f} s")


@fault(
    "Replicas",
    f"All replicas are killed under {STREAMS} streams",
    must="The streams and new requests wait for one that comes back, and lose nothing",
)
def test_all_replicas_are_killed(server: Server, seen: Seen) -> None:
    wait_for_both(server)
    with Streams(server) as streams:
        for engine in children(server):
            os.kill(engine, signal.SIGKILL)
        began = time.monotonic()
        response = ask(server, "hello")
        waited = time.monotonic() - began
        wait_for_both(server)
    assert response.status_code == 200
    streams.assert_complete()
    seen(f"all {STREAMS} streams had their {TOKENS} tokens; a new request waited for {waited:.1f} s")


@fault(
    "Replicas",
    "A replica is stopped (SIGSTOP): its connection stays, but it does nothing",
    must="Killed after --engine-timeout (2 s here); its streams continue on the other one",
)
def test_a_replica_that_is_half_alive(server: Server, seen: Seen) -> None:
    wait_for_both(server)
    with Streams(server) as streams:
        began = time.monotonic()
        os.kill(children(server)[0], signal.SIGSTOP)
        wait_until(lambda: ready(server) == 1, "it is killed")
        took = time.monotonic() - began
        assert ask(server, "hello").status_code == 200
    streams.assert_complete()
    seen(f"killed after {took:.1f} s; all {STREAMS} streams had their {TOKENS} tokens")


@fault(
    "Replicas",
    "A prompt makes each engine send a frame that is not authentic",
    must="The connection ends; after two engines the request ends with an error; others lose nothing",
)
def test_a_frame_that_does_not_decode(server: Server, seen: Seen) -> None:
    wait_for_both(server)
    with Streams(server) as streams:
        response = ask(server, "ENGINE SENDS NOISE", tokens=2000)
    assert response.status_code == 500, response.text
    streams.assert_complete()
    message = response.json()["error"]["message"]
    assert "2 engines ended" in message
    assert "a frame is not authentic" in server.log()
    seen(f"500, “{message}”; all {STREAMS} streams had their {TOKENS} tokens")


@fault(
    "Replicas",
    "Others connect to the port of engines: 100 connections that are idle, or send noise or HTTP",
    must="They receive a random number and nothing else; engines still connect; no stream is affected",
)
def test_others_on_the_port_of_engines(server: Server, port: int, seen: Seen) -> None:
    wait_for_both(server)
    messages = (b"", os.urandom(500), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\xff" * 8, b"\0" * 4)
    with Streams(server) as streams:
        others = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        for number, other in enumerate(others):
            with suppress(OSError):
                other.sendall(messages[number % len(messages)])
        os.kill(children(server)[0], signal.SIGKILL)
        wait_until(lambda: ready(server) == 1, "it is killed")
        took = wait_for_both(server)
        for other in others:
            other.setblocking(False)
            received = b""
            with suppress(BlockingIOError, ConnectionResetError), other:
                while part := other.recv(4096):
                    received += part
            assert len(received) in (0, 4 + 32)
    streams.assert_complete()
    assert server.log().count("connections to the port of engines refused") == 1
    seen(f"a replica that was killed meanwhile connected again within {took:.1f} s; no stream lost a token")
