"""Servers with `faulty_plugin`, and checks of their health after each fault."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
from support.http_server import Server, children

PLUGIN = Path(__file__).with_name("faulty_plugin.py")


def options(backend: str = "faulty") -> tuple[str, ...]:
    """Return the arguments of a server with `faulty_plugin`."""
    parsers = ("--reasoning-parser", "faulty", "--grammar-backend", "faulty")
    return ("--plugin", str(PLUGIN), "--backend", backend, *parsers)


def chat_body(text: str, *, tokens: int = 8, **body: Any) -> dict[str, Any]:
    """Return the body of a chat request."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": tokens, **body}


def ask(server: Server, text: str, *, tokens: int = 8, **body: Any) -> httpx.Response:
    """Send a non-streaming chat request."""
    return httpx.post(
        f"{server.api}/chat/completions", json=chat_body(text, tokens=tokens, **body), timeout=60
    )


@dataclass
class Stream:
    """A stream that has begun; ``events`` yields the remaining events."""

    events: Iterator[str]

    def end(self) -> str:
        """Read the stream to its end; return the message of its error event, or ``""``."""
        rest = [event for event in self.events if event]
        assert rest[-1:] == ["data: [DONE]"], rest[-3:]
        last = msgspec.json.decode(rest[-2].removeprefix("data: ")) if len(rest) > 1 else {}
        return str(last["error"]["message"]) if "error" in last else ""


@contextmanager
def stream(server: Server, text: str, *, tokens: int = 3000) -> Iterator[Stream]:
    """Open a stream and read its first event."""
    body = chat_body(text, tokens=tokens, stream=True)
    with httpx.stream("POST", f"{server.api}/chat/completions", json=body, timeout=60) as response:
        assert response.status_code == 200, response.read()
        lines = response.iter_lines()
        next(lines)
        yield Stream(lines)


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 30) -> float:
    """Wait until a condition holds; return the seconds that this took."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() < start + seconds, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - start


def status(server: Server, path: str = "/health") -> int:
    """Return the status code of ``/health`` or another path."""
    return httpx.get(f"{server.url}{path}", timeout=30).status_code


def assert_unhealthy(server: Server) -> None:
    """Assert that ``/health``, ``/ready`` and a request return 503."""
    assert (status(server), status(server, "/ready")) == (503, 503)
    response = ask(server, "hello")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")


def wait_for_recovery(server: Server, seconds: float = 10) -> float:
    """Wait until the server is healthy and serves requests; return the seconds until ``/health`` was 200."""
    took = wait_until(lambda: status(server) == 200, f"healthy again\n{server.log()}", seconds)
    assert_healthy(server)
    return took


def assert_healthy(server: Server) -> None:
    """Assert that ``/health`` and ``/ready`` return 200 and that a request is served."""
    assert (status(server), status(server, "/ready")) == (200, 200), server.log()
    response = ask(server, "hello", tokens=4)
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] == "aaaa"


def engine(server: Server) -> int:
    """Return the process id of the server's only child."""
    [child] = children(server)
    return child


def has_exited(pid: int) -> bool:
    """Return whether a process has exited; it may be a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def assert_clean_exit(server: Server) -> None:
    """Assert that SIGTERM ends the server with status 0 and without remaining children."""
    left = children(server)
    assert server.stop() == 0, server.log()
    assert all(map(has_exited, left)), left


def alive(server: Server) -> bool:
    """Return whether the server's own process is running."""
    return server.process.poll() is None and os.path.exists(f"/proc/{server.process.pid}")
