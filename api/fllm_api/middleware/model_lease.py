"""Middleware that releases the model of a request once its response is complete."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import LitestarException
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from fllm.serving import DATA_EVENTS
from fllm_api.errors import classify_error, own_error_body, record_failure
from fllm_api.models.early_stream import EarlyStream
from fllm_api.request_context import context_of


class ModelLeaseMiddleware(ASGIMiddleware):
    """Lets a stream start while its request waits for a model, and ends it if the request then fails."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Handle one request."""
        context = context_of(scope)
        opt = scope["route_handler"].opt
        stream = context.early_stream = EarlyStream(send, opt.get("framing", DATA_EVENTS))
        drained = opt.get("allowed_while_draining")
        try:
            # The innermost block, so that a deadline that passes is an event of a stream that has started.
            async with nullcontext() if drained else context.deadline.enforce():
                await next_app(scope, receive, stream.send)
        except Exception as error:
            if not stream.started:
                raise
            # Litestar wraps what is raised once a response has started.
            cause = error.__cause__ if isinstance(error, LitestarException) else None
            failure = cause if isinstance(cause, Exception) else error
            status, body = classify_error(failure)
            request: Request[Any, Any, Any] = Request(scope)
            record_failure(request, failure, body)
            await stream.write_error(msgspec.json.encode(own_error_body(request, status, body)))
        finally:
            if context.lease is not None:
                context.lease.release()
