"""The replicas of a model: start, add, drain, remove and stop them."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from msgspec.structs import replace

from fllm import (
    BackendConfig,
    BackendContext,
    BackendUnavailable,
    ConfigError,
    EngineStats,
    FllmError,
    ModelCard,
    RequestError,
)
from fllm.stats import add_stats
from fllm_backends.replicas.adapters import Adapters
from fllm_backends.replicas.autoscaler import Load
from fllm_backends.replicas.replica import Replica, without_gauges
from fllm_backends.replicas.scaling import Scaling
from fllm_backends.replicas.shares import Shares
from fllm_backends.replicas.watchdog import ProgressWatchdog

CAPACITIES = frozenset({"max_num_seqs", "kv_cache_blocks"})
"""Values of `ModelCard.runtime` that are sums over all replicas."""
NEW_REQUEST_PATIENCE = 10.0
"""Seconds that a new request waits for a replica, if none is available."""

log = logging.getLogger("fllm.replicas")


class Fleet:
    """Owns the replicas. All methods are called on one event loop."""

    def __init__(self, config: BackendConfig, context: BackendContext) -> None:
        if context.load_backend is None:
            raise ConfigError("the backend 'replicas' has no `BackendContext.load_backend`")
        name, *rest = config.chain
        self._create = context.load_backend(name)
        self._config = replace(config, chain=tuple(rest))
        self._shares = Shares(self._config)
        self._context = context
        self._replicas: dict[str, Replica] = {}
        self._removed = EngineStats()
        """Totals of removed replicas."""
        self.stopped = False
        self.failed_starts = 0
        """Number of replicas that could not be added."""
        self._start_error: FllmError | OSError | None = None
        """Why the latest one could not be."""
        self._changed = asyncio.Event()
        self._waiting: dict[int, int] = {}
        """Tokens of the requests that wait for a replica, by a number."""
        self._numbers = itertools.count()
        self._demand = asyncio.Event()
        self.adapters = Adapters(config.lora_modules)
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._replicas)

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._replicas.values())

    async def start(self, count: int) -> ModelCard:
        """Start replicas at the same time. Return a card that holds for all of them.

        If one does not start, stop all and raise its error.
        """
        replicas = [self._new_replica() for _ in range(count)]
        tasks = [asyncio.create_task(self._start(each)) for each in replicas]
        try:
            card = common_card(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self.stop()
            raise
        self._run(ProgressWatchdog(self, self._config.engine_timeout).run())
        if self._config.autoscaling is not None:
            self._run(Scaling(self, self._config.autoscaling, count).run())
        return card

    async def add(self) -> str:
        """Start one more replica. Return its name, or raise the error of its start."""
        replica = self._new_replica()
        try:
            await self._start(replica)
        except BaseException as error:
            del self._replicas[replica.name]
            if isinstance(error, FllmError | OSError):
                self.failed_starts += 1
                self._start_error = error
                self._changed.set()
            raise
        self._start_error = None
        log.info("the replica %s is added", replica.name)
        return replica.name

    async def remove(self, name: str, drain_seconds: float = 0.0) -> None:
        """Drain a replica for so long, then stop it. What it has not finished continues on another one."""
        replica = self.drain(name)
        try:
            async with asyncio.timeout(drain_seconds):
                await self.drained(name)
        except TimeoutError:
            log.info("the replica %s still has %d requests, which are moved", name, replica.requests)
        await replica.backend.stop()
        del self._replicas[name]
        self._removed = add_stats(self._removed, without_gauges(replica.total_stats()))
        log.info("the replica %s is removed", name)

    def drain(self, name: str) -> Replica:
        """Send no more requests to a replica, and return it. Raise `RequestError` if there is none."""
        replica = self._find(name)
        replica.draining = True
        self._notify(replica)
        return replica

    def resume(self, name: str) -> Replica:
        """Send requests to a drained replica again, and return it."""
        replica = self._find(name)
        replica.draining = False
        self._notify(replica)
        return replica

    async def drained(self, name: str) -> None:
        """Wait until a replica that gets no more requests has finished those that it has."""
        replica = self._find(name)
        while replica.requests:
            await self.wait_for_change()

    @contextmanager
    def waiting(self, tokens: int) -> Iterator[None]:
        """Count a request that waits for a replica, and its number of tokens, as demand."""
        number = next(self._numbers)
        self._waiting[number] = tokens
        self._demand.set()
        try:
            yield
        finally:
            del self._waiting[number]

    def load(self) -> Load:
        """Return what there is to do, also for requests that wait for a replica."""
        work = sum(each.work for each in self) + sum(self._waiting.values())
        return Load(work, sum(each.requests for each in self) + len(self._waiting))

    async def wait_for_demand(self, seconds: float) -> None:
        """Wait until a request finds no replica, but not longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._demand.wait()
        self._demand.clear()

    async def wait_for_change(self) -> None:
        """Wait until the state of a replica changes."""
        self._changed.clear()
        await self._changed.wait()

    async def status(self) -> EngineStats:
        """Return the sums over all replicas; raise `BackendUnavailable` if none is ready but should be."""
        if not any(replica.ready for replica in self) and not self._asleep():
            raise BackendUnavailable(self.unavailable_reason())
        await asyncio.gather(*(each.update_stats() for each in self))
        total = add_stats(self._removed, *(each.total_stats() for each in self))
        return replace(total, replicas=tuple(each.report() for each in self))

    def unavailable_reason(self) -> str:
        """Return why no replica can serve a request."""
        states = ", ".join(f"{each.name} is {each.state}" for each in self)
        if self._start_error is not None:
            states = f"{states or 'there is none'}, and another can't be started: {self._start_error}"
        return f"no replica is available: {states or 'there is none'}"

    @property
    def patience(self) -> float:
        """Seconds that a new request waits for a replica, if none is available."""
        scaling = self._config.autoscaling
        return (
            NEW_REQUEST_PATIENCE if scaling is None or scaling.min_replicas else scaling.replica_start_timeout
        )

    def _asleep(self) -> bool:
        """Return whether there is no replica because there is nothing to do, or the first one starts."""
        scaling = self._config.autoscaling
        if scaling is None or scaling.min_replicas or self._start_error is not None:
            return False
        return all(each.state != "down" for each in self)

    async def stop(self) -> None:
        """Stop all replicas."""
        self.stopped = True
        self._changed.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(each.backend.stop() for each in self), return_exceptions=True)

    def _new_replica(self) -> Replica:
        names = (f"replica-{number}" for number in itertools.count())
        replica = Replica(next(name for name in names if name not in self._replicas), self._notify)
        context = replace(self._context, observer=replica)
        if self._replicas:
            context = replace(context, progress=lambda _: None)  # that of the first is enough
        replica.backend = self._create(self._shares.config(replica.name), context)
        replica.adapters = {adapter.id for adapter in self._config.lora_modules}
        self._replicas[replica.name] = replica
        return replica

    async def _start(self, replica: Replica) -> ModelCard:
        card = await replica.backend.start()
        replica.on_ready()
        return card

    def _find(self, name: str) -> Replica:
        if (replica := self._replicas.get(name)) is None:
            names = ", ".join(self._replicas) or "none"
            raise RequestError(f"there is no replica {name!r}; there are {names}", param="name")
        return replica

    def _notify(self, replica: Replica) -> None:
        self._changed.set()
        if replica.ready and self.adapters.differ(replica):
            self._run(self.adapters.update(replica))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def common_card(cards: list[ModelCard]) -> ModelCard:
    """Return the card of the model: limits of a request that hold everywhere, capacities in sum."""
    runtime = {"replicas": len(cards), **cards[0].runtime}
    for name in CAPACITIES & runtime.keys():
        runtime[name] = sum(card.runtime[name] for card in cards)
    return replace(cards[0], max_model_len=min(card.max_model_len for card in cards), runtime=runtime)
