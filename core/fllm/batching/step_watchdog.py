"""A watchdog of the engine thread: it reports a step that does not end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fllm.concurrency.heartbeat import Heartbeat
from fllm.errors import BackendLost

CHECK_INTERVAL = 1.0
"""Seconds between two checks."""


class StepWatchdog:
    """Checks on the event loop, about once a second, whether the same step is still running.

    Loading a model is not a step and may take any time.
    """

    def __init__(
        self, step: Callable[[], int | None], timeout: float, interval: float = CHECK_INTERVAL
    ) -> None:
        self._step = step
        self._heartbeat = Heartbeat(min(interval, timeout), timeout)
        self._last_step: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Check now, and then regularly until `stop`."""
        step = self._step()
        self._heartbeat.record(alive=step is None or step != self._last_step)
        self._last_step = step
        self._timer = asyncio.get_running_loop().call_later(self._heartbeat.interval, self.start)

    def stop(self) -> None:
        """Stop checking."""
        if self._timer is not None:
            self._timer.cancel()

    def check(self) -> None:
        """Raise `BackendLost` if one step has taken too long."""
        if self._heartbeat.expired:
            raise BackendLost(f"the engine hangs: a step has not ended for {self._heartbeat.timeout:g} s")
