"""The replicas that one request meets, until one of them has served it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fllm import BackendError, BackendUnavailable
from fllm.errors import ModelNotFound
from fllm_backends.replicas.assignment import PROBATION_TOKENS, Assignment
from fllm_backends.replicas.fleet import Fleet
from fllm_backends.replicas.replica import Replica
from fllm_backends.replicas.routing import Demand, select

INTERRUPTED_PATIENCE = 60.0
"""Seconds that a request whose engine has ended waits for another one."""
MAX_DEATHS = 2
"""Engines that may end in a row soon after they get a request, which may be the reason."""
QUIET_PATIENCE = 5.0
"""Seconds that a request waits for a replica where nothing else can be taken for the reason of an exit."""
MAX_INTERRUPTIONS = 8
"""Engines that may end while they process a request, whatever they return."""


class Attempts:
    """Selects replicas for one request, and ends it if it must not meet another one."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._deaths = self._interruptions = 0
        self._suspect = False
        """Whether its engine ended so soon that the request may be the reason."""
        self._nodes: set[str] = set()
        """Machines on which its engines have ended: perhaps others there end for the same reason."""
        self._refusals: dict[Replica, BackendUnavailable] = {}

    async def assign(self, demand: Demand) -> Assignment:
        """Return the assignment to the best replica. Wait for one if none is available.

        Raise `BackendUnavailable` if that takes too long, or if each replica has refused the request.
        """
        if self._suspect:
            await self._wait_for_quiet()
        if assignment := self._select(demand):
            return assignment
        fleet = self._fleet
        patience = max(fleet.patience, INTERRUPTED_PATIENCE if self._interruptions else 0)
        failed_starts = fleet.failed_starts
        with suppress(TimeoutError), fleet.waiting(demand.tokens):
            async with asyncio.timeout(patience):
                while fleet.failed_starts == failed_starts or len(fleet):
                    if assignment := self._select(demand):
                        return assignment
                    await fleet.wait_for_change()
        raise BackendUnavailable(fleet.unavailable_reason())

    def record_failure(self, assignment: Assignment, error: BackendUnavailable) -> None:
        """Record that the engine has ended or has refused the request. Raise if all engines seem to end.

        An engine ended soon if it had returned nothing or, for a request that had met the end of another
        one, fewer than `PROBATION_TOKENS`. So all requests of an engine continue at once when it ends for
        the first time, but one by one when the next one ends, too: one of them may be the reason.
        """
        if not assignment.engine_ended:
            self._refusals[assignment.replica] = error
            return
        enough = PROBATION_TOKENS if self._interruptions else 0
        self._suspect = not assignment.started or assignment.tokens < enough
        self._deaths = self._deaths + 1 if self._suspect else 0
        self._interruptions += 1
        self._nodes.add(assignment.node)
        if self._deaths >= MAX_DEATHS or self._interruptions >= MAX_INTERRUPTIONS:
            raise BackendError(
                f"{self._interruptions} engines ended while they processed this request; it is not retried"
            ) from error

    async def _wait_for_quiet(self) -> None:
        """Wait for a moment until the requests of a replica all have outputs, and none is a suspect.

        Suspects go to replicas one by one. If one of them ends its engine again, nothing else is lost.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET_PATIENCE):
                while not any(self._is_quiet(replica) for replica in self._fleet):
                    await self._fleet.wait_for_change()

    def _is_quiet(self, replica: Replica) -> bool:
        return replica.accepts and not replica.unstarted and not replica.suspects

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
        candidates = [each for each in candidates if each.node not in self._nodes] or candidates
        if not self._suspect:
            return select(candidates, demand)
        assignment = select(list(filter(self._is_quiet, candidates)) or candidates, demand)
        if assignment is not None:
            assignment.begin_probation()
        return assignment
