"""Detect replicas that answer, but do not step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from fllm_backends.replicas.replica import Replica

CHECK_INTERVAL = 1.0
"""Seconds between two checks."""
STALL_SECONDS = 5.0
"""Seconds without progress after which other replicas are preferred."""
MAX_UNANSWERED = 3
"""Status checks without a response after which other replicas are preferred."""

log = logging.getLogger("fllm.replicas")


@runtime_checkable
class Restartable(Protocol):
    """A backend whose engine can be ended from outside. The backend then starts another."""

    def restart(self, reason: str) -> None:
        """End the engine; its requests fail with `BackendUnavailable` and this reason."""
        ...


class ProgressWatchdog:
    """Compares what each replica has done with what it has to do."""

    def __init__(self, replicas: Iterable[Replica], max_silence: float) -> None:
        self._replicas = replicas
        self._max_silence = max_silence
        """Seconds without progress after which an engine is restarted."""
        self._interval = min(CHECK_INTERVAL, max_silence / 4)

    async def run(self) -> None:
        """Check all replicas again and again."""
        while True:
            await asyncio.sleep(self._interval)
            await asyncio.gather(*(each.update_stats() for each in self._replicas))
            for replica in list(self._replicas):
                self._check(replica)

    def _check(self, replica: Replica) -> None:
        silence = replica.count_silent_checks() * self._interval
        silent = silence > min(STALL_SECONDS, self._max_silence / 2)
        replica.stalled = silent or replica.unanswered >= MAX_UNANSWERED
        if silence <= self._max_silence:
            return
        reason = f"the engine has requests, but has done nothing for {self._max_silence:g} s"
        log.error("replica %s: %s", replica.name, reason)
        if isinstance(replica.backend, Restartable):
            replica.backend.restart(reason)
