"""The replicas that one request meets, until one of them has served it."""

from __future__ import annotations

import asyncio

from fllm import BackendError, BackendUnavailable
from fllm.errors import ModelNotFound
from fllm_backends.replicas.assignment import Assignment
from fllm_backends.replicas.fleet import Fleet
from fllm_backends.replicas.replica import Replica
from fllm_backends.replicas.routing import Demand, select

NEW_REQUEST_PATIENCE = 10.0
"""Seconds that a new request waits for a replica, if none is available."""
INTERRUPTED_PATIENCE = 60.0
"""The same for a request whose engine has ended."""
MAX_DEATHS = 2
"""Engines that may end in a row before they return anything for a request, which may be the reason."""
MAX_INTERRUPTIONS = 8
"""Engines that may end while they process a request, whatever they return."""


class Attempts:
    """Selects replicas for one request, and ends it if it must not meet another one."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._deaths = self._interruptions = 0
        self._refusals: dict[Replica, BackendUnavailable] = {}

    async def assign(self, demand: Demand) -> Assignment:
        """Return the assignment to the best replica. Wait for one if none is available.

        Raise `BackendUnavailable` if that takes too long, or if each replica has refused the request.
        """
        if assignment := self._select(demand):
            return assignment
        patience = INTERRUPTED_PATIENCE if self._interruptions else NEW_REQUEST_PATIENCE
        try:
            async with asyncio.timeout(patience):
                while (assignment := self._select(demand)) is None:
                    await self._fleet.wait_for_change()
                return assignment
        except TimeoutError:
            raise BackendUnavailable(self._fleet.unavailable_reason()) from None

    def record_progress(self) -> None:
        """Record that a replica has returned something."""
        self._deaths = 0

    def record_failure(self, assignment: Assignment, error: BackendUnavailable) -> None:
        """Record that the engine has ended or has refused the request. Raise if all engines seem to end."""
        if not assignment.engine_ended:
            self._refusals[assignment.replica] = error
            return
        self._deaths += 1
        self._interruptions += 1
        if self._deaths >= MAX_DEATHS or self._interruptions >= MAX_INTERRUPTIONS:
            raise BackendError(
                f"{self._interruptions} engines ended while they processed this request; it is not retried"
            ) from error

    def _select(self, demand: Demand) -> Assignment | None:
        if self._fleet.stopped:
            raise BackendUnavailable("the engine is stopping")
        accepting = [replica for replica in self._fleet if replica.accepts]
        able = [replica for replica in accepting if demand.adapter in (0, *replica.adapters)]
        if accepting and not able:
            raise ModelNotFound("the adapter is not loaded, or no longer")
        candidates = [replica for replica in able if replica not in self._refusals]
        if able and not candidates:
            raise self._refusals[able[0]]
        return select(candidates, demand)
