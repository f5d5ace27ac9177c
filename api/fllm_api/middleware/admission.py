"""The gate of the engine: limits are kept before a byte of a body is read."""

from __future__ import annotations

from litestar.datastructures import MutableScopeHeaders
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from msgspec.structs import replace

from fllm.pipeline.pipeline import PipelineRequest
from fllm_api.limits.admission import Admission, Ticket
from fllm_api.middleware.request_tracking import OBSERVED

ADMITTED = {**OBSERVED, "admitted": True}
"""The ``opt`` of a handler whose requests the engine works on; collectors hear of them."""


class Admitted(ASGIMiddleware):
    """Lets a request in, or refuses it with 429 or 503; its ticket is ``scope["state"]["ticket"]``."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Admit one request."""
        if not scope["route_handler"].opt.get("admitted"):
            await next_app(scope, receive, send)
            return
        state = scope["state"]
        ticket = state["ticket"] = self._admission.admit(state["client"], state["trace"])
        try:
            await next_app(scope, receive, _telling(ticket, send) if ticket.headers() else send)
        finally:
            ticket.release()


def claimed(scope: Scope, asked: PipelineRequest) -> PipelineRequest:
    """The request, once there is room for all its sequences, with the name of its client."""
    state = scope["state"]
    state["ticket"].claim(asked)
    return replace(asked, client=state["client"])


def _telling(ticket: Ticket, send: Send) -> Send:
    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableScopeHeaders.from_message(message).update(ticket.headers())
        await send(message)

    return tell
