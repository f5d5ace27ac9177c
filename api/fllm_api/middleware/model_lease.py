"""Middleware that releases the model of a request once its response is complete."""

from __future__ import annotations

from contextlib import nullcontext

import msgspec
from litestar import Request
from litestar.exceptions import LitestarException
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from fllm_api.errors import classify_error, record_failure
from fllm_api.models.early_stream import EarlyStream
from fllm_api.protocol.errors import ErrorResponse
from fllm_api.request_context import context_of


class ModelLeaseMiddleware(ASGIMiddleware):
    """Lets a stream start while its request waits for a model, and ends it if the request then fails."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Handle one request."""
        context = context_of(scope)
        stream = context.early_stream = EarlyStream(send)
        drained = scope["route_handler"].opt.get("allowed_while_draining")
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
            _, body = classify_error(failure)
            record_failure(Request(scope), failure, body)
            await stream.write_error(msgspec.json.encode(ErrorResponse(body)))
        finally:
            if context.lease is not None:
                context.lease.release()
