"""Which requests are in flight."""

from __future__ import annotations

from fllm import RequestRecord


class InFlight:
    """A request waits until its first token is here, and then runs."""

    def __init__(self) -> None:
        self._waiting: set[str] = set()
        self._running: set[str] = set()

    @property
    def waiting(self) -> int:
        """How many have no token yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many have their first token, and not their last."""
        return len(self._running)

    def received(self, request: RequestRecord) -> None:
        """It waits."""
        self._waiting.add(request.request_id)

    def started(self, request: RequestRecord) -> None:
        """It waits no more."""
        self._waiting.discard(request.request_id)
        self._running.add(request.request_id)

    def finished(self, request: RequestRecord) -> None:
        """It is gone, whether or not it ever ran."""
        self._waiting.discard(request.request_id)
        self._running.discard(request.request_id)
