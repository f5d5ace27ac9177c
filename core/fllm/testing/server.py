"""Start real servers as a user would, for tests over HTTP."""

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

from fllm.engine_host.parent_death import ending_with

READY_LINE = re.compile(r"serving.*? (https?://\S+:\d+|unix:\S+)")
"""Log line of a server that is ready; the group is its URL."""
START_TIMEOUT = 300.0
"""Seconds that a start may take; it may download a model and compile kernels."""


@dataclass
class Server:
    """A running ``furiosa-llm serve``."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)
    """Output lines so far, stdout and stderr combined."""

    @property
    def api(self) -> str:
        """The base URL for OpenAI clients."""
        return f"{self.url}/v1"

    def log(self) -> str:
        """Return all output so far, stdout and stderr combined."""
        return "".join(self.lines)

    def stop(self, signum: signal.Signals = signal.SIGTERM, timeout: float = 60) -> int:
        """Send a signal, wait up to ``timeout`` seconds, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(timeout)


class Serve(Protocol):
    """Type of the fixture ``serve``, which starts one server per set of arguments and session."""

    def __call__(self, *arguments: str | os.PathLike[str], **environment: str) -> Server:
        """Return a server: ``serve("MODEL", "--plugin", "my.py", FLLM_DISABLE_PLUGINS="metrics")``."""
        ...


@contextmanager
def serving(
    *arguments: str | os.PathLike[str], timeout: float = START_TIMEOUT, **environment: str
) -> Iterator[Server]:
    """Run a server on a free port, wait until it is ready, and stop it at exit.

    Keyword arguments are environment variables. Raise `AssertionError` with the log if the server ends early
    or is not ready after ``timeout`` seconds.
    """
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
        yield Server(process, _wait_until_ready(process, lines, timeout), lines)
    finally:
        _stop(process)


@contextmanager
def shared_servers() -> Iterator[Serve]:
    """Yield a function that starts servers, reuses those with the same arguments, and restarts ended ones.

    All servers stop at exit.
    """
    running: dict[object, Server] = {}
    with ExitStack() as stack:

        def serve(*arguments: str | os.PathLike[str], **environment: str) -> Server:
            key = (tuple(map(str, arguments)), tuple(sorted(environment.items())))
            if key not in running or running[key].process.poll() is not None:
                running[key] = stack.enter_context(serving(*arguments, timeout=START_TIMEOUT, **environment))
            return running[key]

        yield serve


def _wait_until_ready(process: subprocess.Popen[str], lines: list[str], timeout: float) -> str:
    ready: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_collect_output, args=(process, lines, ready), daemon=True).start()
    try:
        url = ready.get(timeout=timeout)
    except queue.Empty:
        raise AssertionError(f"the server is not ready after {timeout:g} s:\n{''.join(lines)}") from None
    if url is None:
        raise AssertionError(f"the server ended before it was ready:\n{''.join(lines)}")
    return url


def _collect_output(process: subprocess.Popen[str], lines: list[str], ready: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    is_ready = False
    try:
        for line in process.stdout:
            lines.append(line)
            if not is_ready and (match := READY_LINE.search(line)):
                is_ready = True
                ready.put(match[1])
    except ValueError:  # `_stop` closed the stream
        pass
    if not is_ready:
        ready.put(None)


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
