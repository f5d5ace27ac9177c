"""The end of a server: what it has accepted is finished, and nothing more is accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from litestar.exceptions import HTTPException
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from fllm.errors import BackendUnavailable
from fllm_api.lifecycle.deadline import Deadline
from fllm_api.lifecycle.request_timeout import deadline_in

TO_THE_END = {"to_the_end": True}
"""The ``opt`` of a handler that answers while the server drains: it says how the server is."""

SHUTTING_DOWN = "the server is shutting down"


class Drain:
    """Which requests are under way, and whether more are accepted."""

    def __init__(self) -> None:
        self.began = False
        self._under_way: set[Deadline] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def begin(self) -> None:
        """Accept no more."""
        self.began = True

    @property
    def under_way(self) -> int:
        """How many requests are under way."""
        return len(self._under_way)

    @contextmanager
    def accepted(self, deadline: Deadline) -> Iterator[None]:
        """A request is under way."""
        self._under_way.add(deadline)
        self._empty.clear()
        try:
            yield
        finally:
            self._under_way.discard(deadline)
            if not self._under_way:
                self._empty.set()

    async def done(self) -> None:
        """Return once none is under way."""
        await self._empty.wait()

    def end(self) -> None:
        """The time is over: let each request say so and end."""
        for deadline in self._under_way:
            deadline.end(BackendUnavailable(SHUTTING_DOWN))


class Draining(ASGIMiddleware):
    """Counts requests under way; refuses new ones once the drain has begun.

    The handler finds the request's `Deadline` as ``scope["state"]["deadline"]``.
    """

    def __init__(self, drain: Drain, request_timeout: float = 0.0) -> None:
        self._drain = drain
        self._request_timeout = request_timeout

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Accept one request, or refuse it."""
        if scope["route_handler"].opt.get("to_the_end"):
            await next_app(scope, receive, send)
            return
        if self._drain.began:
            raise HTTPException(
                status_code=503,
                detail=SHUTTING_DOWN,
                headers={"Retry-After": "1", "Connection": "close"},
                extra={"code": "unavailable"},
            )
        deadline = scope["state"]["deadline"] = deadline_in(self._request_timeout)
        with self._drain.accepted(deadline):
            async with deadline.bounds():
                await next_app(scope, receive, send)
