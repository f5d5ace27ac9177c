"""How many requests are in flight."""

from __future__ import annotations

from fllm import RequestRecord


class InFlight:
    """A request waits until its first token is here, and then runs."""

    def __init__(self) -> None:
        self.waiting = 0
        """How many have no token yet."""
        self.running = 0
        """How many have their first token, and not their last."""

    def received(self) -> None:
        """One waits."""
        self.waiting += 1

    def started(self) -> None:
        """One waits no more."""
        self.waiting -= 1
        self.running += 1

    def finished(self, request: RequestRecord) -> None:
        """It is gone, whether or not it ever ran."""
        if request.first_token_at is None:
            self.waiting -= 1
        else:
            self.running -= 1
