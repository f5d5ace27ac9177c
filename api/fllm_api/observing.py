"""Who watches a request: the collectors of metrics."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from fllm.interfaces import Collector
from fllm.trace import Trace
from fllm_api.guarded import Guarded

OBSERVED = {"observed": True}
"""The ``opt`` of a handler whose requests collectors hear of."""


class Observed(ASGIMiddleware):
    """Makes the trace of a request before a byte of its body is read, and ends it whatever happens.

    Handlers find it as ``scope["state"]["trace"]``; who answers a failure leaves its message as ``"error"``.
    """

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self._collectors = [Guarded(collector) for collector in collectors]

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Observe one request."""
        if not scope["route_handler"].opt.get("observed"):
            return await next_app(scope, receive, send)
        state = scope["state"]
        trace = state["trace"] = Trace(uuid.uuid4().hex, self._collectors)
        try:
            await next_app(scope, receive, send)
        except BaseException:
            state.setdefault("error", "the request was cancelled")
            raise
        finally:
            trace.finish(state.get("error"))
