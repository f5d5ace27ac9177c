"""Real servers for tests: spawned as a user would, spoken to over HTTP."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

READY = re.compile(r"https?://\S+:\d+")


@dataclass
class Server:
    """A running ``furiosa-llm serve``."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)

    @property
    def api(self) -> str:
        """The base URL for OpenAI clients."""
        return f"{self.url}/v1"

    def children(self) -> list[int]:
        """Process ids of its children: the engine's is among them."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            return [int(pid) for pid in file.read().split()]

    def log(self) -> str:
        """All that it has printed so far."""
        return "".join(self.lines)

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 60) -> int:
        """Send a signal and wait; gives the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout)


def command(*arguments: str) -> list[str]:
    """The command line of ``furiosa-llm`` in this environment."""
    return [sys.executable, "-m", "fllm_api", *arguments]


def run(*arguments: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``furiosa-llm`` to its end."""
    env = {**os.environ, **environment}
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, env=env)


@contextmanager
def serving(*arguments: str, timeout: float = 300, **environment: str) -> Iterator[Server]:
    """A server on a free port, from its ready line to its end."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    process = subprocess.Popen(
        command("serve", "--port", "0", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    )
    lines: list[str] = []
    try:
        url = _wait_until_ready(process, lines, timeout)
        yield Server(process, url, lines)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _wait_until_ready(process: subprocess.Popen[str], lines: list[str], timeout: float) -> str:
    ready: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines, ready), daemon=True).start()
    deadline = time.monotonic() + timeout
    url = ready.get(timeout=deadline - time.monotonic())
    assert url, f"the server ended before it was ready:\n{''.join(lines)}"
    return url


def _read(process: subprocess.Popen[str], lines: list[str], ready: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    told = False
    try:
        for line in process.stdout:
            lines.append(line)
            if not told and "serving" in line and (match := READY.search(line)):
                told = True
                ready.put(match.group())
    except ValueError:  # closed under us at the end
        pass
    if not told:
        ready.put(None)
