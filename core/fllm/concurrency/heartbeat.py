"""Stall detection for watchdogs, which counts checks instead of reading a clock."""

from __future__ import annotations


class Heartbeat:
    """Adds up how long something has shown no sign of life, one check interval at a time.

    While a process is stopped (SIGSTOP) or its machine sleeps, no check happens. So such a pause is not
    mistaken for a stall, whatever the clock shows afterwards.
    """

    def __init__(self, interval: float, timeout: float) -> None:
        self.interval = interval
        """Seconds between two checks."""
        self.timeout = timeout
        """Seconds without a sign of life after which `expired` is True."""
        self.silence = 0.0
        """Seconds without a sign of life so far."""

    def record(self, *, alive: bool) -> None:
        """Record one check, which happens an interval after the last one."""
        self.silence = 0.0 if alive else self.silence + self.interval

    @property
    def expired(self) -> bool:
        """Whether there has been no sign of life for the timeout."""
        return self.silence >= self.timeout
