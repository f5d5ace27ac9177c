"""The requests that wait for a model, in an order that is fair to clients."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Generic, TypeVar

from fllm_api.models.lease import ModelLease
from fllm_api.models.model import Model

T = TypeVar("T")


class Waiter(Generic[T]):
    """A request that waits for its model."""

    def __init__(self, model: Model[T], client: str, number: int) -> None:
        self.model = model
        self.client = client
        self.number = number
        """Increases with the arrival."""
        self.lease: asyncio.Future[ModelLease[T]] = asyncio.get_running_loop().create_future()


class _Group(Generic[T]):
    """The requests that wait for one model."""

    def __init__(self) -> None:
        self.waiters: dict[int, Waiter[T]] = {}
        """By number, which is the order of arrival."""
        self.turns: dict[str, int] = {}
        """The turn of each client that waits."""
        self.counts: Counter[str] = Counter()

    @property
    def turn(self) -> tuple[int, int]:
        """When the model is to be loaded, as compared with others."""
        return min(self.turns.values()), next(iter(self.waiters))


class WaitingLine(Generic[T]):
    """Groups requests by model, and orders the models by turns.

    Each further model that a client waits for has a later turn, so a client that asks for many models at once
    delays others by one load, not by all (start-time fair queueing, Goyal, Vin and Cheng 1996).
    """

    def __init__(self) -> None:
        self._groups: dict[Model[T], _Group[T]] = {}
        self._numbers = itertools.count()
        self._turn = 0
        """Turn of the last model that was loaded."""
        self._last_turns: dict[str, int] = {}
        """The latest turn of each client that has one to come."""

    def __len__(self) -> int:
        return sum(len(group.waiters) for group in self._groups.values())

    def add(self, model: Model[T], client: str) -> Waiter[T]:
        """Add a request."""
        group = self._groups.setdefault(model, _Group())
        if client not in group.turns:
            turn = max(self._turn, self._last_turns.get(client, 0)) + 1
            group.turns[client] = self._last_turns[client] = turn
        group.counts[client] += 1
        waiter = Waiter(model, client, next(self._numbers))
        group.waiters[waiter.number] = waiter
        return waiter

    def remove(self, waiter: Waiter[T]) -> None:
        """Remove a request that is served, rejected or cancelled, if it still waits."""
        group = self._groups.get(waiter.model)
        if group is None or group.waiters.pop(waiter.number, None) is None:
            return
        group.counts[waiter.client] -= 1
        if not group.counts[waiter.client]:
            del group.counts[waiter.client], group.turns[waiter.client]
        if not group.waiters:
            del self._groups[waiter.model]

    def of(self, model: Model[T]) -> list[Waiter[T]]:
        """Return the requests for a model by arrival."""
        group = self._groups.get(model)
        return [] if group is None else [*group.waiters.values()]

    def place(self, waiter: Waiter[T]) -> int:
        """Return the place of a request among those for its model, from 1."""
        return sum(each.number <= waiter.number for each in self.of(waiter.model))

    def models(self) -> list[Model[T]]:
        """Return the models that requests wait for, in the order in which they are to be loaded."""
        return sorted(self._groups, key=lambda model: self._groups[model].turn)

    def advance(self, model: Model[T]) -> None:
        """Record that a model is being loaded: it was its turn."""
        if model in self._groups:
            turn, _ = self._groups[model].turn
            self._turn = max(self._turn, turn)
        self._last_turns = {client: turn for client, turn in self._last_turns.items() if turn > self._turn}
