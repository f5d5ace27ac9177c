"""Middleware that reports requests to the metrics collectors and the access log."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from fllm.interfaces import Collector
from fllm.logs import REQUEST_ID
from fllm.pipeline.request_tracker import RequestTracker
from fllm.plugin_usage import UsageMeter, UsageMeters
from fllm_api.errors import classify_error
from fllm_api.request_context import RequestContext, context_of

NOT_TRACKED = {"not_tracked": True}
"""The ``opt`` of a handler that is polled, such as a health check: no tracker and no access-log line."""

PLUGIN = "plugin"
"""In the ``opt`` of a handler of a plugin: its name."""

TRACE_CONTEXT = (b"traceparent", b"tracestate")
"""The headers of W3C Trace Context."""


class RequestTrackingMiddleware(ASGIMiddleware):
    """Creates the tracker of a request before a byte of its body is read, and finishes it in every case."""

    def __init__(
        self, collectors: Sequence[Collector], usage: UsageMeters, *, names_models: bool = False
    ) -> None:
        """Create it. ``names_models``: collectors learn of a request only once its model is known."""
        self._collectors = collectors
        self._usage = usage
        self._names_models = names_models

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Track one request."""
        context = context_of(scope)
        REQUEST_ID.set(context.request_id)
        opt = scope["route_handler"].opt
        if opt.get("not_tracked"):
            await next_app(scope, receive, send)
            return
        collectors = self._collectors if opt.get("uses_engine") else ()
        context.tracker = _new_tracker(scope, context, collectors, deferred=self._names_models)
        if (plugin := opt.get(PLUGIN)) is None:
            await self._handle(context, scope, receive, send, next_app)
        else:
            meter = self._usage.meter(plugin, "routes", plugin)
            await self._handle_metered(meter, scope, receive, send, next_app)

    async def _handle_metered(
        self, meter: UsageMeter, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp
    ) -> None:
        """Track a request of a plugin's route, and count what it costs."""
        bytes_in = bytes_out = 0
        context, started_at = context_of(scope), perf_counter()

        async def receive_counted() -> Any:
            nonlocal bytes_in
            message: Any = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            nonlocal bytes_out
            if message["type"] == "http.response.body":
                bytes_out += len(message.get("body", b""))  # ASGI: it may be absent
            await send(message)

        try:
            await self._handle(context, scope, receive_counted, send_counted, next_app)
        finally:
            meter.add(
                calls=1,
                seconds=perf_counter() - started_at,
                errors=int((context.status or 0) >= 500),
                bytes_in=bytes_in,
                bytes_out=bytes_out,
            )

    async def _handle(
        self, context: RequestContext, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp
    ) -> None:
        try:
            await next_app(scope, receive, send)
        except Exception as error:  # Litestar's exception handler, which sends the response, runs after this
            context.status, body = classify_error(error)
            context.error = context.error or body.message
            context.error_code = context.error_code or body.code
            raise
        except BaseException:
            context.error = context.error or "the request was cancelled"
            raise
        finally:
            is_silent = scope["route_handler"].opt.get("polled") and (context.status or 500) < 400
            _report_end(context, () if is_silent else self._collectors)


def report_unrouted(scope: Scope, collectors: Sequence[Collector]) -> None:
    """Report a request for an unknown path or method, for which no middleware ran."""
    context = context_of(scope)
    context.tracker = _new_tracker(scope, context, ())
    _report_end(context, collectors)


def _report_end(context: RequestContext, collectors: Sequence[Collector]) -> None:
    tracker = context.tracker
    tracker.status = context.status
    tracker.client = context.client
    tracker.error_code = context.error_code
    tracker.finish(context.error)
    for collector in collectors:
        collector.on_http_request_end(tracker)


def _new_tracker(
    scope: Scope, context: RequestContext, collectors: Sequence[Collector], *, deferred: bool = False
) -> RequestTracker:
    return RequestTracker(
        context.request_id,
        collectors,
        method=context.method,
        path=scope["path"],
        client=context.client,
        trace_context={
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in TRACE_CONTEXT
        },
        deferred=deferred,
    )
