"""Servers with `faulty_plugin`, and what is asked of one after each fault."""

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
    """The command line of a server that can break anywhere."""
    parsers = ("--reasoning-parser", "faulty", "--grammar-backend", "faulty")
    return ("--plugin", str(PLUGIN), "--backend", backend, *parsers)


def asking(text: str, *, tokens: int = 8, **body: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": tokens, **body}


def ask(server: Server, text: str, *, tokens: int = 8, **body: Any) -> httpx.Response:
    """The whole answer to a chat request."""
    return httpx.post(f"{server.api}/chat/completions", json=asking(text, tokens=tokens, **body), timeout=60)


@dataclass
class Stream:
    """A stream that has begun; ``events`` are those that are yet to come."""

    events: Iterator[str]

    def end(self) -> str:
        """Read on until it ends: the message of its error, or ``""`` if it has none."""
        rest = [event for event in self.events if event]
        assert rest[-1:] == ["data: [DONE]"], rest[-3:]
        last = msgspec.json.decode(rest[-2].removeprefix("data: ")) if len(rest) > 1 else {}
        return str(last["error"]["message"]) if "error" in last else ""


@contextmanager
def stream(server: Server, text: str, *, tokens: int = 3000) -> Iterator[Stream]:
    """A stream; its first event has been read."""
    body = asking(text, tokens=tokens, stream=True)
    with httpx.stream("POST", f"{server.api}/chat/completions", json=body, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        lines = answer.iter_lines()
        next(lines)
        yield Stream(lines)


def until(holds: Callable[[], bool], what: str, seconds: float = 30) -> float:
    """Wait; gives the seconds that it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + seconds, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began


def status(server: Server, path: str = "/health") -> int:
    """What ``/health`` or ``/ready`` says."""
    return httpx.get(f"{server.url}{path}", timeout=30).status_code


def assert_unwell(server: Server) -> None:
    """Both say so, and a request is refused at once."""
    assert (status(server), status(server, "/ready")) == (503, 503)
    refused = ask(server, "hello")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")


def recovery(server: Server, seconds: float = 10) -> float:
    """Seconds until it is healthy again, and shown to be so."""
    took = until(lambda: status(server) == 200, f"healthy again\n{server.log()}", seconds)
    assert_well(server)
    return took


def assert_well(server: Server) -> None:
    """It says that it is, and a new request is answered."""
    assert (status(server), status(server, "/ready")) == (200, 200), server.log()
    answer = ask(server, "hello", tokens=4)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "aaaa"


def engine(server: Server) -> int:
    """The process id of its only child."""
    [child] = children(server)
    return child


def gone(pid: int) -> bool:
    """No such process, or nothing but its exit status."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def assert_ends_clean(server: Server) -> None:
    """It ends by SIGTERM with status 0, and leaves no child."""
    left = children(server)
    assert server.stop() == 0, server.log()
    assert all(map(gone, left)), left


def alive(server: Server) -> bool:
    """Whether the server's own process is there."""
    return server.process.poll() is None and os.path.exists(f"/proc/{server.process.pid}")
