"""Starts real servers for tests."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from fllm.testing.parent_death import ending_with

READY = re.compile(r"serving.*?(https?://\S+:\d+)")
"""Log line with the URL."""
TIMEOUT = 300.0
"""Seconds until a server must be ready; it may download a model and compile kernels."""


@dataclass
class Server:
    """A running ``furiosa-llm serve``."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)
    """Output so far, stdout and stderr together."""

    @property
    def api(self) -> str:
        """Base URL for OpenAI clients."""
        return f"{self.url}/v1"

    def log(self) -> str:
        """Return the output so far."""
        return "".join(self.lines)

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 60) -> int:
        """Send a signal, wait, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout)


class Serve(Protocol):
    """The fixture ``serve``: a server with these arguments, started once for all tests of the session."""

    def __call__(self, *arguments: str | os.PathLike[str], **environment: str) -> Server:
        """``serve("MODEL", "--plugin", "my.py", FLLM_DISABLE_PLUGINS="metrics")``."""
        ...


@contextmanager
def serving(
    *arguments: str | os.PathLike[str], timeout: float = TIMEOUT, **environment: str
) -> Iterator[Server]:
    """Run a server on a free port; wait until it is ready, and end it afterwards."""
    process = subprocess.Popen(
        ending_with(
            os.getpid(), [sys.executable, "-m", "fllm_api", "serve", "--port", "0", *map(str, arguments)]
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )
    lines: list[str] = []
    try:
        yield Server(process, _url(process, lines, timeout), lines)
    finally:
        _end(process)


@contextmanager
def shared() -> Iterator[Serve]:
    """Yield a function that starts each server once per arguments; end all servers together."""
    running: dict[object, Server] = {}
    with ExitStack() as stack:

        def serve(*arguments: str | os.PathLike[str], **environment: str) -> Server:
            key = (tuple(map(str, arguments)), tuple(sorted(environment.items())))
            if key not in running or running[key].process.poll() is not None:
                running[key] = stack.enter_context(serving(*arguments, timeout=TIMEOUT, **environment))
            return running[key]

        yield serve


def _url(process: subprocess.Popen[str], lines: list[str], timeout: float) -> str:
    ready: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines, ready), daemon=True).start()
    try:
        url = ready.get(timeout=timeout)
    except queue.Empty:
        raise AssertionError(f"the server is not ready after {timeout:g} s:\n{''.join(lines)}") from None
    if url is None:
        raise AssertionError(f"the server ended before it was ready:\n{''.join(lines)}")
    return url


def _read(process: subprocess.Popen[str], lines: list[str], ready: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    found = False
    try:
        for line in process.stdout:
            lines.append(line)
            if not found and (match := READY.search(line)):
                found = True
                ready.put(match[1])
    except ValueError:  # closed under us at the end
        pass
    if not found:
        ready.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
