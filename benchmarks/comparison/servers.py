"""The servers of a comparison: one is awake at a time, the others are stopped with SIGSTOP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from peers import MODEL, Setup, Unavailable, stop

from . import machine

FAILURES = Unavailable, OSError, subprocess.SubprocessError, RuntimeError, ValueError
"""What another engine can fail with: a row of the table says so."""
START_SECONDS = 900
SPARE_BYTES = 5 << 30
"""Memory that must be available before another server starts; else the one that slept longest ends."""
ROOT = Path(__file__).resolve().parents[2]


class Engine(Protocol):
    """What is measured: ours, or a `peers.Peer`."""

    @property
    def name(self) -> str: ...

    def version(self) -> str: ...

    def start(self, port: int) -> subprocess.Popen[bytes]: ...

    def ready(self, port: int) -> bool: ...


class Ours:
    """Our own server, with its defaults."""

    name = "ours"
    precision = "as served by default"

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.variables = machine.AVX2 if setup.avx2 else {}

    def version(self) -> str:
        """Return the version and the commit."""
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
        )
        return f"{version('furiosa-llm-server')} {commit.stdout.strip()}".strip()

    def start(self, port: int) -> subprocess.Popen[bytes]:
        """Start ``furiosa-llm serve`` on the file."""
        command = [
            *(Path(sys.executable).parent / "furiosa-llm", "serve", self._setup.gguf),
            *("--port", str(port), "--served-model-name", MODEL),
            *("--backend-option", f"threads={self._setup.threads}"),
        ]
        with (self._setup.directory / "ours.log").open("wb") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self.variables,
                start_new_session=True,
            )

    def ready(self, port: int) -> bool:
        """Return whether it answers requests."""
        from peers.environment import answers

        return answers(port)


class Server:
    """A session of processes that runs one engine; `awake` starts and continues it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.port = 0
        self.loading_bytes = 0
        """Most memory before it was ready."""
        self.serving_bytes = 0
        """Most memory of the moments at which it was asked for since."""
        self.slept_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Return whether its process is there, awake or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it is ready. Raise `Unavailable`."""
        self.port = free_port()
        self._process = self.engine.start(self.port)
        give_up = time.monotonic() + START_SECONDS
        while not self.engine.ready(self.port):
            self.loading_bytes = max(self.loading_bytes, self._memory())
            if self._process.poll() is not None:
                raise Unavailable(f"the server ended with {self._process.returncode}")
            if time.monotonic() > give_up:
                self.end()
                raise Unavailable(f"not ready after {START_SECONDS} s")
            time.sleep(0.05)
        self.note_memory()

    def sleep(self) -> None:
        """Stop all its processes, where they are."""
        if self.runs:
            self._signal(signal.SIGSTOP)
        self.slept_at = time.monotonic()

    def wake(self) -> None:
        """Let its processes continue."""
        if self.runs:
            self._signal(signal.SIGCONT)

    def end(self) -> None:
        """End it and all its processes."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    def note_memory(self) -> None:
        """Measure its memory now."""
        self.serving_bytes = max(self.serving_bytes, self._memory())

    def _memory(self) -> int:
        return memory(self._process.pid) if self._process is not None and self.runs else 0

    def _signal(self, sign: signal.Signals) -> None:
        if self._process is not None:
            for process in processes(self._process.pid):
                os.kill(process, sign)


class Servers:
    """All servers of one model."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._servers = {engine.name: Server(engine) for engine in engines}

    def __getitem__(self, name: str) -> Server:
        return self._servers[name]

    @contextmanager
    def awake(self, name: str) -> Iterator[Server]:
        """Let only this server run; start it if necessary. Raise `Unavailable` if that fails."""
        server = self._servers[name]
        if server.runs:
            server.wake()
        else:
            self._make_room()
            server.start()
        try:
            yield server
        finally:
            server.note_memory()
            server.sleep()

    def _make_room(self) -> None:
        sleeping = sorted((each for each in self._servers.values() if each.runs), key=lambda s: s.slept_at)
        for server in sleeping:
            if machine.available_bytes() > SPARE_BYTES:
                return
            server.end()

    def end(self) -> None:
        """End all of them."""
        for server in self._servers.values():
            server.end()


@contextmanager
def watched(server: Server, seconds: float = 0.1) -> Iterator[None]:
    """Measure a server's memory again and again during the block."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(seconds):
            server.note_memory()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def memory(session: int) -> int:
    """Return the proportional set size of all processes of a session, in bytes.

    Mapped pages of files count, and pages that processes share are divided among them.
    """
    total = 0
    for process in processes(session):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total * 1024


def processes(session: int) -> Iterator[int]:
    """Yield the processes of a session."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session:
            yield int(directory.name)


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
