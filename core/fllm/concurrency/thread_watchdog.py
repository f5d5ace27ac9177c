"""A watchdog of threads, which interrupts Python code that takes too much CPU time or memory."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

CHECK_INTERVAL = 0.1
"""Seconds between two checks."""
MAX_IDLE_CHECKS = 50
"""Checks without a function that runs after which the thread ends. The next function starts it again."""


class LimitExceeded(Exception):
    """The code was interrupted. The message says which limit it exceeded."""


class Interrupt(BaseException):
    """Raised inside the code that exceeds a limit, which must not catch it."""


class ThreadWatchdog:
    """Runs functions in the calling thread, with limits. One thread checks all that run.

    It raises an exception inside the function between two Python instructions. So it can't interrupt a single
    call into an extension, such as the multiplication of large integers. A run costs about a microsecond.
    """

    def __init__(self, *, cpu_seconds: float, memory: int) -> None:
        self._cpu_seconds = cpu_seconds
        self._memory = memory
        """Bytes by which the memory of this process may grow, from the first check of a function on."""
        self._runs: dict[int, _Run] = {}
        """The functions that run, by thread."""
        self._lock = threading.Lock()
        self._started = False

    def run(self, function: Callable[[], T], *, cpu_seconds: float | None = None) -> T:
        """Return the function's result. Raise `LimitExceeded` if it exceeds a limit.

        ``cpu_seconds`` replaces the limit of CPU time.
        """
        run = _Run(self._cpu_seconds if cpu_seconds is None else cpu_seconds)
        try:
            try:
                self._begin(run)
                return function()
            finally:
                self._end(run)
        except Interrupt:
            while self._runs.get(threading.get_ident()) is run:
                # On a busy machine, a second one may arrive before the first has ended the run.
                with suppress(Interrupt):
                    self._end(run)
            raise LimitExceeded(run.exceeded) from None

    def _begin(self, run: _Run) -> None:
        with self._lock:
            self._runs[threading.get_ident()] = run
            if not self._started:
                self._started = True
                threading.Thread(target=self._watch, name="fllm-thread-watchdog", daemon=True).start()

    def _end(self, run: _Run) -> None:
        thread = threading.get_ident()
        with self._lock:
            self._runs.pop(thread, None)
        if run.exceeded:
            _receive_pending_interrupt()

    def _watch(self) -> None:
        idle = 0
        while True:
            time.sleep(CHECK_INTERVAL)
            memory = resident_memory() if self._runs else 0
            with self._lock:
                idle = 0 if self._runs else idle + 1
                if idle == MAX_IDLE_CHECKS:
                    self._started = False
                    return
                for thread, run in self._runs.items():
                    self._check(thread, run, memory)

    def _check(self, thread: int, run: _Run, memory: int) -> None:
        run.memory = run.memory or memory
        if memory - run.memory > self._memory:
            run.exceeded = f"it takes more than {self._memory >> 20} MiB of memory"
        elif time.clock_gettime(time.pthread_getcpuclockid(thread)) > run.cpu_end:
            run.exceeded = f"it takes more than {run.cpu_seconds:g} s"
        if run.exceeded:
            _raise_in_thread(thread, Interrupt)


class _Run:
    """A function that runs."""

    def __init__(self, cpu_seconds: float) -> None:
        self.cpu_seconds = cpu_seconds
        self.cpu_end = time.thread_time() + cpu_seconds
        """CPU time of the thread at which it is interrupted."""
        self.memory = 0
        """Memory of the process at the first check."""
        self.exceeded = ""
        """The limit that it exceeds."""


def resident_memory() -> int:
    """Return the bytes of memory that this process uses; 0 if they can't be read."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no file descriptor is left
        return 0


def _raise_in_thread(thread: int, error: type[BaseException]) -> None:
    """Raise an exception in a thread at its next Python instruction."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _receive_pending_interrupt() -> None:
    """Let an `Interrupt` of this thread that is still pending be raised here.

    CPython 3.11 must not be asked to withdraw it: it would then check for exceptions at every instruction,
    and a traced function would never end.
    """
    with suppress(Interrupt):
        for _ in range(100):  # each iteration checks for exceptions
            pass
