"""A watchdog of the event loop, on which parsers and collectors run: a stranger's code that may hang.

A thread sees that the loop's heart has stopped, and interrupts what is being executed there by a signal whose
handler raises. So what hangs fails like whatever raises: its request ends with an error, all others go on.
No thread can see anything while `re` looks for a match, since it holds the GIL; but it hears signals, and so
the kernel counts, too, how long the process computes.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread, get_ident
from types import FrameType

BEAT = 0.5
"""Seconds between two heartbeats."""
PATIENCE = 5.0
"""Seconds without one until the loop is said to hang. The longest honest work there takes about one."""
TRIES = 10
"""Interruptions, a second apart: many answers may hang in one turn of the loop, one after the other."""
SIGNAL = getattr(signal, "SIGURG", None)
"""Ignored by default, so that no child which still has no handler dies of it."""
EXIT_STATUS = 70
"""EX_SOFTWARE, of sysexits.h."""


class Hang(Exception):
    """Raised in the midst of what has kept the event loop from everything else for too long."""


@contextmanager
def watched(
    loop: asyncio.AbstractEventLoop, patience: float = PATIENCE, tries: int = TRIES
) -> Iterator[None]:
    """Watch the loop, which this thread, the main one, runs; no other thread can be interrupted."""
    if SIGNAL is None:
        yield
        return
    watchdog = Watchdog(loop, patience, tries)
    before = {each: signal.signal(each, watchdog.interrupt) for each in (SIGNAL, signal.SIGPROF)}
    watchdog.start()
    try:
        yield
    finally:
        watchdog.stop()
        for each, handler in before.items():
            signal.signal(each, handler)


class Watchdog:
    """Counts its own looks, and no clock's seconds: a process that was stopped has looked at nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patience: float, tries: int) -> None:
        self._loop = loop
        self._patience = patience
        self._tries = tries
        self._beats = 0
        self._suspect = -1
        """After which beat the loop was interrupted."""
        self._computed = 0.0
        """Seconds of computing of the main thread at the last beat."""
        self._main = get_ident()
        self._stopped = Event()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat, and to look."""
        self._beat()
        Thread(target=self._watch, name="fllm-watchdog", daemon=True).start()

    def stop(self) -> None:
        """End both."""
        self._stopped.set()
        signal.setitimer(signal.ITIMER_PROF, 0)
        if self._timer is not None:
            self._timer.cancel()

    def interrupt(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Handle the signals, in the main thread: raise `Hang`, unless the loop has beaten meanwhile."""
        if self._stopped.is_set():
            return
        if self._beats == self._suspect or time.thread_time() - self._computed >= self._patience:
            raise Hang(f"it kept the server from everything else for {self._patience:g} s")

    def _beat(self) -> None:
        self._beats += 1
        self._computed = time.thread_time()
        signal.setitimer(signal.ITIMER_PROF, self._patience, 1.0)
        self._timer = self._loop.call_later(BEAT, self._beat)

    def _watch(self) -> None:
        seen, missed, tried = self._beats, 0.0, 0
        while not self._stopped.wait(BEAT):
            if seen != self._beats:
                seen, missed, tried = self._beats, 0.0, 0
                continue
            missed += BEAT
            if missed >= self._patience + tried:
                if tried == self._tries:
                    _give_up(missed)
                tried += 1
                self._suspect = seen
                signal.pthread_kill(self._main, signal.SIGURG)


def _give_up(seconds: float) -> None:
    """End the process; the engine's ends with it. No log: who hangs may hold its lock."""
    line = f"furiosa-llm: the event loop hangs for {seconds:g} s, and nothing interrupts it: the end\n"
    os.write(sys.stderr.fileno(), line.encode())
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    os._exit(EXIT_STATUS)
