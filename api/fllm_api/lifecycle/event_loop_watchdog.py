"""A watchdog of the event loop, which interrupts third-party code that blocks it.

Parsers and collectors run on the event loop. A thread detects that the loop's heartbeat has stopped, and
interrupts what is being executed there with a signal whose handler raises. So code that hangs fails like code
that raises: its request ends with an error, and all others go on.

While a debugger stops the loop, such as at a ``breakpoint()``, it is not interrupted.

No thread can run while `re` searches for a match, since it holds the GIL. But signals still arrive, so the
kernel also measures the CPU time of the process (``ITIMER_PROF``).
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread, get_ident
from types import FrameType

from fllm.concurrency.heartbeat import Heartbeat

HEARTBEAT_INTERVAL = 0.5
"""Seconds between two heartbeats."""
STALL_TIMEOUT = 5.0
"""Seconds without a heartbeat after which the loop is interrupted. The longest legitimate work there takes
about one second."""
MAX_INTERRUPTS = 10
"""Maximum number of interruptions, one second apart: several responses may hang one after the other in one
iteration of the loop."""
SIGNAL = getattr(signal, "SIGURG", None)
"""Signal that is ignored by default, so that it does not kill a child process without a handler."""
DEBUGGERS = frozenset(("bdb", "pdb", "code", "IPython.core.debugger", "pudb.debugger"))
"""Modules whose code runs while their prompt waits."""
TRACERS = frozenset(("bdb", "pdb", "pydevd", "_pydevd_bundle", "pydevd_tracing", "pudb"))
"""Packages whose functions trace code for a debugger, unlike those of tools that measure coverage."""
log = logging.getLogger("fllm.server")
EXIT_STATUS = 70
"""``EX_SOFTWARE`` of ``sysexits.h``."""


class EventLoopStalled(Exception):
    """Raised inside the code that has blocked the event loop for too long."""


@contextmanager
def watch_event_loop(
    loop: asyncio.AbstractEventLoop,
    stall_timeout: float = STALL_TIMEOUT,
    max_interrupts: int = MAX_INTERRUPTS,
) -> Iterator[None]:
    """Watch the loop, which must run in this thread, the main one: no other thread can be interrupted."""
    if SIGNAL is None:
        yield
        return
    watchdog = EventLoopWatchdog(loop, stall_timeout, max_interrupts)
    before = {each: signal.signal(each, watchdog.interrupt) for each in (SIGNAL, signal.SIGPROF)}
    watchdog.start()
    try:
        yield
    finally:
        watchdog.stop()
        for each, handler in before.items():
            signal.signal(each, handler)


class EventLoopWatchdog:
    """Counts the heartbeats of the loop from a thread, and interrupts the loop if there are none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stall_timeout: float, max_interrupts: int) -> None:
        self._loop = loop
        self._stall_timeout = stall_timeout
        self._max_interrupts = max_interrupts
        self._beats = 0
        self._interrupted_at = -1
        """Heartbeat after which the loop was interrupted."""
        self._cpu_seconds = 0.0
        """CPU time of the main thread at the last heartbeat."""
        self._main = get_ident()
        self._stopped = Event()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the heartbeat and the thread that checks it."""
        self._beat()
        Thread(target=self._watch, name="fllm-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop both."""
        self._stopped.set()
        signal.setitimer(signal.ITIMER_PROF, 0)
        if self._timer is not None:
            self._timer.cancel()

    def interrupt(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Handle the signals: raise `EventLoopStalled`, unless there was a heartbeat in the meantime."""
        if self._stopped.is_set() or is_debugged(frame):
            return
        computed = time.thread_time() - self._cpu_seconds
        if self._beats == self._interrupted_at or computed >= self._stall_timeout:
            raise EventLoopStalled(f"the event loop was blocked for {self._stall_timeout:g} s")

    def _beat(self) -> None:
        self._beats += 1
        self._cpu_seconds = time.thread_time()
        signal.setitimer(signal.ITIMER_PROF, self._stall_timeout, 1.0)
        self._timer = self._loop.call_later(HEARTBEAT_INTERVAL, self._beat)

    def _watch(self) -> None:
        heartbeat = Heartbeat(HEARTBEAT_INTERVAL, self._stall_timeout)
        last_seen, interrupts, debugged = self._beats, 0, False
        while not self._stopped.wait(HEARTBEAT_INTERVAL):
            heartbeat.record(alive=self._beats != last_seen)
            if not heartbeat.silence:
                last_seen, interrupts = self._beats, 0
            elif is_debugged(sys._current_frames().get(self._main)):
                heartbeat = Heartbeat(HEARTBEAT_INTERVAL, self._stall_timeout)
                if not debugged:
                    log.warning("a debugger has stopped the event loop: all requests wait for it")
                debugged = True
            elif heartbeat.silence >= self._stall_timeout + interrupts:
                if interrupts == self._max_interrupts:
                    _exit(heartbeat.silence)
                interrupts += 1
                self._interrupted_at = last_seen
                signal.pthread_kill(self._main, signal.SIGURG)


def is_debugged(frame: FrameType | None) -> bool:
    """Return whether a debugger has stopped the code of this frame, or traces the process.

    `pdb` and its relatives run inside the stack of what they stop. Debuggers of editors trace all threads.
    """
    monitoring = getattr(sys, "monitoring", None)  # since Python 3.12
    if monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None:
        return True
    tracer = getattr(sys.gettrace(), "__module__", None) or ""
    if tracer.partition(".")[0] in TRACERS:
        return True
    while frame is not None:
        if frame.f_globals.get("__name__") in DEBUGGERS:
            return True
        frame = frame.f_back
    return False


def _exit(seconds: float) -> None:
    """End the process, and with it the engine's. Do not log: the code that hangs may hold the log's lock."""
    line = (
        f"furiosa-llm: the event loop has been blocked for {seconds:g} s and can't be interrupted: exiting\n"
    )
    os.write(sys.stderr.fileno(), line.encode())
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    os._exit(EXIT_STATUS)
