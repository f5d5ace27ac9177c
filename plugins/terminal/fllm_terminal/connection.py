"""Where requests go: a server that runs, or one that is started for this command alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from fllm.engine_host.parent_death import ending_with
from fllm.errors import UserError
from fllm_terminal.text import first_line

_URL = re.compile(r"https?://\S+|unix:/\S+")
_ADDRESS = re.compile(r"[A-Za-z0-9.-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
"""A host and a port."""
_READY = re.compile(r"\bserving\b.* unix:")
_LOG_PREFIX = re.compile(r"^\S+ [A-Z]+ \S+: ")
_ENDING_SECONDS = 10


class Connection(Struct, frozen=True):
    """How a server is reached."""

    url: str
    """Its base URL for OpenAI's clients, which ends with ``/v1``."""
    socket: str | None = None
    """Path of its Unix socket, if it has no port."""
    api_key: str | None = None


def is_url(target: str) -> bool:
    """Return whether a target is the address of a server, and not a model."""
    return bool(_URL.fullmatch(target) or (_ADDRESS.fullmatch(target) and not Path(target).exists()))


def connect(url: str, api_key: str | None) -> Connection:
    """Return the connection to the server at a URL, or at ``HOST:PORT``."""
    if url.startswith("unix:"):
        return Connection("http://localhost/v1", url.removeprefix("unix:"), api_key)
    base = (url if "://" in url else f"http://{url}").rstrip("/")
    return Connection(base if base.endswith("/v1") else f"{base}/v1", api_key=api_key)


@contextmanager
def private_server(
    model: str | None, options: list[str], on_progress: Callable[[str], None]
) -> Iterator[Connection]:
    """Run a server for a model on a private socket until exit.

    ``on_progress`` receives what the server does while it starts. If it does not start, raise `UserError`
    with its last line. A closed terminal or SIGTERM leaves nothing behind.
    """
    for ending in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(ending) == signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(ending, _exit)
    with tempfile.TemporaryDirectory(prefix="furiosa-llm-", dir=_short_directory()) as directory:
        socket = str(Path(directory, "socket"))
        command = [sys.executable, "-m", "fllm_api", "serve", *([model] if model else []), *options]
        process = subprocess.Popen(
            ending_with(os.getpid(), [*command, "--uds", socket]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C ends an answer, not the server
        )
        try:
            _wait_until_ready(process, on_progress)
            yield Connection("http://localhost/v1", socket)
        finally:
            _end(process)


def _short_directory() -> str | None:
    """Return where the socket can be if that of the temporary directory is too long for one (107 bytes)."""
    return "/tmp" if len(os.fsencode(tempfile.gettempdir())) > 70 else None


def _wait_until_ready(process: subprocess.Popen[str], on_progress: Callable[[str], None]) -> None:
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        if not line.strip():
            continue
        if _READY.search(line):
            # The server's log goes on; nobody reads it, but the pipe must not fill up.
            threading.Thread(target=deque, args=(process.stdout, 0), daemon=True).start()
            return
        last = first_line(line, 1000)
        on_progress(_LOG_PREFIX.sub("", last))
    raise UserError(last.removeprefix("furiosa-llm: error: ") or "the server ended before it was ready")


def _exit(number: int, _: object) -> None:
    sys.exit(128 + number)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
