"""Middleware that reads a large body only when there is memory for it."""

from __future__ import annotations

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPReceiveMessage, Receive, Scope, Send, WebSocketReceiveMessage
from litestar.utils.scope.state import ScopeState

from fllm_api.limits.body_memory import SMALL_BODY, BodyMemory, BodyReservation
from fllm_api.request_context import context_of


class BodyMemoryMiddleware(ASGIMiddleware):
    """Gives each request a `BodyReservation`. Clients take turns; a small body needs none."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Count the body of one request until the request ends, unless the handler streams it."""
        context = context_of(scope)
        reservation = context.body = BodyReservation(self._memory, context.client)
        streamed = scope["route_handler"].opt.get("streams_body")
        try:
            await next_app(scope, receive if streamed else _counted(scope, receive, reservation), send)
        finally:
            _forget_body(scope)
            reservation.release()


def _forget_body(scope: Scope) -> None:
    """Clear what Litestar caches: an open connection keeps the scope of its last request."""
    state = ScopeState.from_scope(scope)
    state.body = b""
    state.json = state.msgpack = None


def _counted(scope: Scope, receive: Receive, reservation: BodyReservation) -> Receive:
    """Return ``receive`` with the reservation of the body; a small body does not change it."""
    length = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            return _growing(receive, reservation)
    return receive if length is None or length <= SMALL_BODY else _reserved(receive, reservation, length)


def _reserved(receive: Receive, reservation: BodyReservation, length: int) -> Receive:
    reserved = False

    async def receive_reserved() -> HTTPReceiveMessage | WebSocketReceiveMessage:
        nonlocal reserved
        if not reserved:
            await reservation.receive(length)
            reserved = True
        return await receive()

    return receive_reserved


def _growing(receive: Receive, reservation: BodyReservation) -> Receive:
    size = 0

    async def receive_growing() -> HTTPReceiveMessage | WebSocketReceiveMessage:
        nonlocal size
        message = await receive()
        if message["type"] == "http.request":
            size += len(message["body"])
            reservation.grow(size)
        return message

    return receive_growing
