"""Middleware that rejects requests while the server drains, and sets the deadline of the others."""

from __future__ import annotations

from litestar.exceptions import HTTPException
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from fllm_api.lifecycle.drain import SHUTTING_DOWN, RequestDrain
from fllm_api.lifecycle.request_timeout import deadline_in
from fllm_api.request_context import context_of

ALLOWED_WHILE_DRAINING = {"allowed_while_draining": True}
"""The ``opt`` of a handler that also responds while the server drains, such as a health check."""


class DrainMiddleware(ASGIMiddleware):
    """Creates the deadline of a request and counts it as in flight; rejects it if the server drains."""

    def __init__(self, drain: RequestDrain, request_timeout: float = 0.0) -> None:
        self._drain = drain
        self._request_timeout = request_timeout

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Accept or reject one request."""
        if scope["route_handler"].opt.get("allowed_while_draining"):
            await next_app(scope, receive, send)
            return
        if self._drain.started:
            raise HTTPException(
                status_code=503,
                detail=SHUTTING_DOWN,
                headers={"Retry-After": "1", "Connection": "close"},
                extra={"code": "unavailable"},
            )
        deadline = context_of(scope).deadline = deadline_in(self._request_timeout)
        with self._drain.track(deadline):
            async with deadline.enforce():
                await next_app(scope, receive, send)
