"""Middleware that rejects requests which exceed a limit, before a byte of their body is read."""

from __future__ import annotations

from litestar.datastructures import MutableScopeHeaders
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from fllm.values import BACKGROUND_PRIORITY
from fllm_api.limits.admission import Admission, AdmissionSlot
from fllm_api.request_context import context_of


class AdmissionMiddleware(ASGIMiddleware):
    """Gives each request a slot until its response is complete, or rejects it with 429 or 503."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Admit one request."""
        opt = scope["route_handler"].opt
        if not (opt.get("uses_engine") or opt.get("limited")):
            await next_app(scope, receive, send)
            return
        context = context_of(scope)
        slot = context.slot = self._admission.admit(
            context.client, context.tracker, background=context.priority >= BACKGROUND_PRIORITY
        )
        try:
            await next_app(scope, receive, _with_rate_limit_headers(slot, send) if slot.headers() else send)
        finally:
            slot.release()


def _with_rate_limit_headers(slot: AdmissionSlot, send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableScopeHeaders.from_message(message).update(slot.headers())
        await send(message)

    return send_with_headers
