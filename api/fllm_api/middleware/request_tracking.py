"""Who watches a request: the collectors of metrics, and the log."""

from __future__ import annotations

from collections.abc import Sequence

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from fllm.interfaces import Auditing, Collector
from fllm.logs import REQUEST_ID
from fllm.pipeline.request_tracker import RequestTracker
from fllm_api.errors import describe
from fllm_api.metrics.isolated_collector import Guarded
from fllm_api.request_id import request_id

OBSERVED = {"observed": True}
"""The ``opt`` of a handler whose requests collectors hear of."""
UNHEARD = {"unheard": True}
"""The ``opt`` of a handler that asks how the server is, again and again: nobody hears of that."""

TRACE_CONTEXT = (b"traceparent", b"tracestate")
"""The headers of W3C Trace Context."""


class Observed(ASGIMiddleware):
    """Makes the trace of a request before a byte of its body is read, and ends it whatever happens.

    Handlers find it as ``scope["state"]["trace"]``; who answers a failure leaves its message as ``"error"``,
    who knows the client its name as ``"client"``.
    """

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self._collectors = [Guarded(collector) for collector in collectors]
        self._auditors = [Guarded(collector) for collector in collectors if isinstance(collector, Auditing)]

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Observe one request."""
        REQUEST_ID.set(request_id(scope))
        opt = scope["route_handler"].opt
        if opt.get("unheard"):
            return await next_app(scope, receive, send)
        state = scope["state"]
        tracker = state["trace"] = _trace(scope, self._collectors if opt.get("observed") else ())
        try:
            await next_app(scope, receive, send)
        except Exception as error:  # whoever answers it stands before us
            state["status"], body = describe(error)
            state.setdefault("error", body.message)
            raise
        except BaseException:
            state.setdefault("error", "the request was cancelled")
            raise
        finally:
            self._end(tracker, scope)

    def _end(self, tracker: RequestTracker, scope: Scope) -> None:
        state = scope["state"]
        tracker.status = state.get("status")
        tracker.client = state.get("client", tracker.client)
        tracker.finish(state.get("error"))
        for auditor in self._auditors:
            auditor.answered(tracker)


def _trace(scope: Scope, collectors: Sequence[Collector]) -> RequestTracker:
    address = scope.get("client")
    return RequestTracker(
        request_id(scope),
        collectors,
        method=str(scope.get("method", "")),
        path=scope["path"],
        client=f"ip:{address[0]}" if address else "ip:unknown",
        trace_context={
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in TRACE_CONTEXT
        },
    )
