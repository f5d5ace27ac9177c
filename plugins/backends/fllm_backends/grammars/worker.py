"""A child process for work that may never end: it is killed when its time is up.

What clients send is compiled here. A library may take minutes and gigabytes for a hundred bytes of pattern,
and no thread can be stopped.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from fllm.errors import BackendError, RequestError
from fllm.registry import describe

A = TypeVar("A")
Q = TypeVar("Q")

SECONDS = 0.8
"""For one piece of work; a usual schema takes ten milliseconds."""
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
        self._process: BaseProcess | None = None
        self._pipe: Connection

    def do(self, work: Q) -> bytes:
        """The result; raises `RequestError` where the child does, or is too slow."""
        if self._process is None or not self._process.is_alive():
            self._start()
        self._pipe.send(work)
        if not self._pipe.poll(SECONDS):
            self.stop()
            raise RequestError(f"the grammar is too complex: compiling it takes more than {SECONDS} s")
        try:
            kind, result = self._pipe.recv()
        except EOFError:
            self.stop()
            raise RequestError("the grammar is too complex: compiling it takes too much memory") from None
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
            self._process.join()
            self._process = None
            self._pipe.close()

    def _start(self) -> None:
        self.stop()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._make, self._argument()), name="fllm-grammars", daemon=True
        )
        self._process.start()
        theirs.close()
        if not self._pipe.poll(START_SECONDS) or self._pipe.recv() != _READY:
            self.stop()
            raise BackendError("the process that compiles grammars does not start")


def _serve(pipe: Connection, make: Callable[[A], Callable[[Q], bytes]], argument: A) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # warnings of the libraries, which answers tell better
    work = make(argument)
    _limit_memory()
    pipe.send(_READY)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        _limit_time()
        pipe.send(_done(work, request))


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
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


def _limit_time() -> None:
    """Its parent may die while it works; then nobody else would end it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + SECONDS) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
