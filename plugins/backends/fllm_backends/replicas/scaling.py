"""Add and remove replicas as the autoscaler decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from typing import Any, Protocol

from fllm import FllmError
from fllm.config import Autoscaling
from fllm_backends.replicas.autoscaler import Autoscaler, Load
from fllm_backends.replicas.replica import Replica

INTERVAL = 1.0
"""Seconds between two decisions; a request that finds no replica causes one at once."""
DRAIN_SECONDS = 600.0
"""Time that the requests of a replica may take to end; then other replicas continue them."""
MAX_START_DELAY = 30.0
"""Maximum seconds between two attempts to add a replica."""

log = logging.getLogger("fllm.replicas")


class Scalable(Protocol):
    """A set of replicas whose number can change: see `Fleet`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Replica]: ...
    def load(self) -> Load: ...
    async def wait_for_demand(self, seconds: float) -> None: ...
    async def add(self) -> str: ...
    def drain(self, name: str) -> Replica: ...
    def resume(self, name: str) -> Replica: ...
    async def drained(self, name: str) -> None: ...
    async def remove(self, name: str) -> None: ...


class Scaling:
    """Changes the number of replicas of a fleet. A replica that is removed is drained first."""

    def __init__(self, fleet: Scalable, config: Autoscaling, replicas: int) -> None:
        self._fleet = fleet
        self._config = config
        self._autoscaler = Autoscaler(config, replicas)
        self._starting = 0
        """Replicas whose tasks have not begun yet."""
        self._failures = 0
        """Failed starts in a row."""
        self._start_at = 0.0
        """Time before which no replica is added."""
        self._draining: dict[str, asyncio.Task[None]] = {}
        """Replicas that are drained, and may still be kept."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Update the number of replicas until the task is cancelled."""
        try:
            while True:
                self._step(asyncio.get_running_loop().time())
                await self._fleet.wait_for_demand(INTERVAL)
        finally:
            for task in self._tasks:
                task.cancel()

    def _step(self, now: float) -> None:
        load = self._fleet.load()
        before = self._autoscaler.target
        target = self._autoscaler.update(now, load)
        if target != before:
            log.info(
                "replicas: %d instead of %d, for %d requests with %d queued tokens",
                target,
                before,
                load.requests,
                load.queued_tokens,
            )
        staying = [each for each in self._fleet if not each.draining]
        for replica in staying:
            if task := self._draining.pop(replica.name, None):  # it was resumed meanwhile
                task.cancel()
        for _ in range(target - len(staying)):
            self._add(now)
        for replica in sorted(staying, key=_cost)[: max(0, len(staying) - target)]:
            self._fleet.drain(replica.name)
            self._draining[replica.name] = self._run(self._remove(replica.name))

    def _add(self, now: float) -> None:
        """Keep a replica that is being drained, or start another one."""
        if self._draining:
            name, task = self._draining.popitem()
            task.cancel()
            self._fleet.resume(name)
            log.info("the replica %s is kept", name)
        elif len(self._fleet) + self._starting < self._config.max_replicas and now >= self._start_at:
            self._starting += 1
            self._run(self._start())

    async def _start(self) -> None:
        self._starting -= 1  # from now on, it is one of the fleet
        try:
            await self._fleet.add()
            self._failures = 0
        except (FllmError, OSError) as error:
            delay = min(2.0**self._failures, MAX_START_DELAY)
            self._failures += 1
            self._start_at = asyncio.get_running_loop().time() + delay
            log.error("a replica can't be started: %s; the next attempt is in %g s", error, delay)

    async def _remove(self, name: str) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._fleet.drained(name)
        except TimeoutError:
            log.info("the replica %s is not drained within %g s", name, DRAIN_SECONDS)
        del self._draining[name]
        await self._fleet.remove(name)

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _cost(replica: Replica) -> tuple[bool, int, int]:
    """Return a key that is least for the replica whose removal costs least."""
    return replica.ready, replica.requests, -int(replica.name.rpartition("-")[2])
