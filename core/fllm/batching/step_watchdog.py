"""Whether the engine thread still ends its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fllm.errors import BackendLost

BEAT = 1.0
"""Seconds between two looks."""


class Pulse:
    """Looks about once a second, on the event loop, which step is under way.

    It counts its own looks, not what a clock says: a process that was stopped, or a machine that slept, has
    missed them all, and its engine is not to blame. Loading a model is no step, and may take
    as long as it does.
    """

    def __init__(self, step: Callable[[], int | None], patience: float, beat: float = BEAT) -> None:
        self._step = step
        self._patience = patience
        self._beat = min(beat, patience)
        self._last: int | None = None
        self._lasted = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look until `stop`."""
        step = self._step()
        self._lasted = self._lasted + self._beat if step is not None and step == self._last else 0.0
        self._last = step
        self._timer = asyncio.get_running_loop().call_later(self._beat, self.start)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def check(self) -> None:
        """Raise `BackendLost` if one step has lasted too long."""
        if self._lasted >= self._patience:
            raise BackendLost(f"the engine hangs: a step has not ended for {self._patience:g} s")
