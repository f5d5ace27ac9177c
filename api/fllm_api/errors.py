"""Map every exception to OpenAI's error envelope."""

from __future__ import annotations

import logging
import re
import sysconfig
import traceback
from collections.abc import Mapping
from http.client import responses as REASON_PHRASES
from pathlib import Path
from typing import Any, cast

from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.routes import HTTPRoute
from msgspec import Struct

from fllm.containment import contained
from fllm.errors import BackendError, BackendUnavailable, ModelNotFound, RequestError
from fllm.serving import ErrorBody, ErrorInfo
from fllm_api.lifecycle.client_disconnect import ClientDisconnected
from fllm_api.protocol.errors import ErrorResponse
from fllm_api.request_context import context_of
from fllm_api.unknown_paths import path_hint

log = logging.getLogger("fllm.api")

ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
"""Error type by status. Others are ``invalid_request_error`` below 500 and ``server_error`` from 500."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""How Python's default ``repr`` ends, as in ``<function f at 0x7f2f7a5b8c10>``."""
_ROOTS = {*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), str(Path(__file__).parents[2])}
_INSTALLED = re.compile(rf"(?:{'|'.join(map(re.escape, _ROOTS))})/[^\s'\",;:)>]*")
"""A path of Python or of this package."""

MAX_MESSAGE_CHARS = 2000
"""Maximum length of a message, which is in the response and in the log."""


def classify_error(error: Exception, operation: str = "") -> tuple[int, ErrorInfo]:
    """Return the status code and the error body for an exception.

    An unexpected exception becomes a 500 that reveals nothing about it. ``operation`` (``GET /nowhere``) is
    appended to messages of Litestar that only repeat the reason phrase of the status.
    """
    match error:
        case ModelNotFound():
            return 404, error_info(404, error.message, error.param, error.code)
        case RequestError():
            return 400, error_info(400, error.message, error.param, error.code)
        case BackendUnavailable():
            return 503, error_info(503, error.message, code="unavailable")
        case BackendError():
            return 500, error_info(500, error.message)
        case ClientDisconnected():
            return 499, error_info(499, str(error))
        case ValidationException():
            return 400, error_info(400, *_first_problem(error))
        case HTTPException(status_code=status) if status != 500:
            extra = error.extra if isinstance(error.extra, dict) else {}
            generic = error.detail == REASON_PHRASES.get(status)
            message = f"{error.detail}: {operation}" if generic else error.detail
            return status, error_info(status, message, extra.get("param"), extra.get("code"))
        case _:
            return 500, error_info(500, "the server failed to process the request; see its log")


def own_error_body(request: Request[Any, Any, Any], status: int, error: ErrorInfo) -> Struct:
    """Return the body of an error response: OpenAI's envelope, or that of the route."""
    make: ErrorBody | None = _route_opt(request, status).get("error_body")
    if make is None:
        return ErrorResponse(error)
    with contained(lambda failure: log.error("the error body of a route failed", exc_info=failure)):
        return make(status, error, context_of(request.scope).request_id)
    return ErrorResponse(error)


def handle_exception(request: Request[Any, Any, Any], error: Exception) -> Response[Struct]:
    """Return the response for an exception raised before the response started."""
    hint = path_hint(request.scope["path"]) if isinstance(error, NotFoundException) else ""
    status, body = classify_error(error, f"{_operation(request)}{hint and f': {hint}'}")
    record_failure(request, error, body)
    # Tasks and their errors refer to each other. Without this, the frames keep the body, which may be large,
    # until the garbage collector finds them.
    traceback.clear_frames(error.__traceback__)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if isinstance(error, MethodNotAllowedException) and "GET" in headers["allow"]:
        headers["allow"] += ", HEAD"
    if status == 503:
        headers.setdefault("Retry-After", "1")
    if own_id := _route_opt(request, status).get("request_id_header"):
        headers[own_id] = context_of(request.scope).request_id
    content = own_error_body(request, status, body)
    return Response(content, status_code=status, headers=headers, media_type="application/json")


def record_failure(request: Request[Any, Any, Any], error: Exception, body: ErrorInfo) -> None:
    """Store the error message in the request context; log the exception if it is the server's fault."""
    context = context_of(request.scope)
    context.error, context.error_code = body.message, body.code
    if isinstance(error, RequestError | HTTPException | BackendUnavailable | ClientDisconnected):
        return
    plugin = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    log.error("request failed: %s (%s)%s", _operation(request), context.request_id, plugin, exc_info=error)


def error_info(status: int, message: str, param: str | None = None, code: str | None = None) -> ErrorInfo:
    """Return the content of the envelope, with the error type of the status.

    Messages of libraries may hold addresses of objects or paths of the installation, which are removed.
    """
    message = _INSTALLED.sub("a file of the server", _ADDRESS.sub("", message))
    if len(message) > MAX_MESSAGE_CHARS:  # it quotes the request
        message = f"{message[:MAX_MESSAGE_CHARS]}..."
    kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return ErrorInfo(message, kind, param, code)


def _route_opt(request: Request[Any, Any, Any], status: int) -> Mapping[str, Any]:
    """Return the ``opt`` of the route handler; if the path has none for the method, of one for another."""
    handler: Any = cast("Mapping[str, Any]", request.scope).get("route_handler")
    if handler is None and status == 405:
        path = request.scope["path"].rstrip("/")
        others = (
            route.route_handlers
            for route in request.app.routes
            if isinstance(route, HTTPRoute) and route.path == path
        )
        handler = next(
            (handler for each in others for handler in each if "OPTIONS" not in handler.http_methods), None
        )
    return {} if handler is None else handler.opt


def _operation(request: Request[Any, Any, Any]) -> str:
    return f"{context_of(request.scope).method} {request.url.path}"


def _first_problem(error: ValidationException) -> tuple[str, str | None]:
    """Return message and parameter of Litestar's own validation of path, query and headers."""
    problems = error.extra if isinstance(error.extra, list) else []
    first = problems[0] if problems else {}
    return first.get("message", error.detail), first.get("key")
