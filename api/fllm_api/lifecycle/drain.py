"""Draining: the server finishes the requests in flight and rejects new ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fllm.errors import BackendUnavailable
from fllm_api.lifecycle.deadline import Deadline

SHUTTING_DOWN = "the server is shutting down"


class RequestDrain:
    """Tracks the requests in flight, and whether new ones are accepted."""

    def __init__(self) -> None:
        self.started = False
        self._in_flight: set[Deadline] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def start(self) -> None:
        """Accept no further requests."""
        self.started = True

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return len(self._in_flight)

    @contextmanager
    def track(self, deadline: Deadline) -> Iterator[None]:
        """Count a request as in flight."""
        self._in_flight.add(deadline)
        self._empty.clear()
        try:
            yield
        finally:
            self._in_flight.discard(deadline)
            if not self._in_flight:
                self._empty.set()

    async def wait_until_empty(self) -> None:
        """Return once no request is in flight."""
        await self._empty.wait()

    def expire_all(self) -> None:
        """End every request in flight with a 503 or an error event."""
        for deadline in self._in_flight:
            deadline.expire(BackendUnavailable(SHUTTING_DOWN))
