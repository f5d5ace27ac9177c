"""A child process for work that may never end: it is killed when its time is up.

What clients send is compiled here. A library may take minutes and gigabytes for a hundred bytes of pattern,
and no thread can be stopped.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

from fllm.errors import BackendError, RequestError
from fllm.registry import describe

A = TypeVar("A")
Q = TypeVar("Q")

CPU_SECONDS = 0.8
"""Of computing, for one piece of work, however busy the machine is; a usual schema takes ten milliseconds."""
WALL_SECONDS = 10.0
"""For one that waits without computing."""
START_SECONDS = 30.0
MEMORY = 2 << 30
"""Bytes of address space beyond what it has when it is ready."""
NICENESS = 5
"""The engine's threads come first."""

_READY = "ready"


class Worker(Generic[A, Q]):
    """Does one piece of work at a time; started when it is first needed, and again after it was killed.

    ``make`` and ``argument`` must be picklable: in the child, ``make(argument)`` gives what does the work.
    """

    def __init__(self, make: Callable[[A], Callable[[Q], bytes]], argument: Callable[[], A]) -> None:
        self._make = make
        self._argument = argument
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection

    def do(self, work: Q) -> bytes:
        """The result; raises `RequestError` where the child does, or is too slow."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        try:
            self._pipe.send(work)
            in_time = self._pipe.poll(WALL_SECONDS)
            kind, result = self._pipe.recv() if in_time else (RequestError, _too_slow(WALL_SECONDS))
        except (EOFError, OSError):
            raise RequestError(self._cause_of_death()) from None
        if not in_time:
            self.stop()
        if kind is RequestError:
            raise RequestError(result)
        if kind is BackendError:
            raise BackendError(result)
        assert isinstance(result, bytes)
        return result

    def stop(self) -> None:
        """Kill it, if it lives."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._pipe.close()

    def _cause_of_death(self) -> str:
        assert self._process is not None
        status = self._process.wait()
        self.stop()
        if status == -signal.SIGPROF:
            return _too_slow(CPU_SECONDS)
        return "the grammar is too complex: compiling it takes too much memory"

    def _start(self) -> None:
        self.stop()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # warnings of the libraries, which answers tell better
            )
        self._pipe = Connection(ours.detach())
        try:
            self._pipe.send((self._make, self._argument()))
            ready = self._pipe.poll(START_SECONDS) and self._pipe.recv() == _READY
        except (EOFError, OSError):
            ready = False
        if not ready:
            self.stop()
            raise BackendError("the process that compiles grammars does not start")


def serve(pipe: Connection) -> None:
    """The child: until nobody is at the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    make, argument = pipe.recv()
    work = make(argument)
    _limit_memory()
    pipe.send(_READY)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        # Whose time is up is ended by the kernel, in whatever library it is; even if the parent has died.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        result = _done(work, request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(result)


def _done(work: Callable[[Q], bytes], request: Q) -> tuple[type, bytes | str]:
    try:
        return bytes, work(request)
    except RequestError as error:
        return RequestError, error.message
    except (MemoryError, RecursionError):
        return RequestError, "the grammar is too complex"
    except Exception as error:  # noqa: BLE001  it is raised anew in the parent
        return BackendError, describe(error)


def _limit_memory() -> None:
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _too_slow(seconds: float) -> str:
    return f"the grammar is too complex: compiling it takes more than {seconds} s"


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
