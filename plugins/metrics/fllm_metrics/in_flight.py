"""Count the requests in flight."""

from __future__ import annotations

from fllm import RequestRecord


class InFlight:
    """Counts waiting requests, which have no token, and running requests, which have at least one."""

    def __init__(self) -> None:
        self.waiting = 0
        """Number of requests without a token."""
        self.running = 0
        """Number of unfinished requests with at least one token."""

    def add(self) -> None:
        """Count a new request as waiting."""
        self.waiting += 1

    def mark_running(self) -> None:
        """Count a waiting request as running."""
        self.waiting -= 1
        self.running += 1

    def remove(self, request: RequestRecord) -> None:
        """Stop counting a request, whether or not it was running."""
        if request.first_token_at is None:
            self.waiting -= 1
        else:
            self.running -= 1
