"""Every failure in one envelope, whoever raised it."""

from __future__ import annotations

import logging
from http.client import responses as PHRASES
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from fllm.errors import BackendError, BackendUnavailable, RequestError
from fllm_api.protocol.errors import ErrorInfo, ErrorResponse
from fllm_api.request_id import request_id

log = logging.getLogger("fllm.api")

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
"""Of other statuses below 500: ``invalid_request_error``; from 500 on: ``server_error``."""


def where(request: Request[Any, Any, Any]) -> str:
    """What was asked for, in a message."""
    return f"{request.method} {request.url.path}"


def describe(error: Exception, asked: str = "") -> tuple[int, ErrorInfo]:
    """Status and body for any exception; what is nobody's business but ours becomes a plain 500.

    ``asked`` (``GET /nowhere``) completes messages of Litestar that are but the status in words.
    """
    match error:
        case RequestError():
            return 400, error_body(400, error.message, error.param, error.code)
        case BackendUnavailable():
            return 503, error_body(503, error.message, code="unavailable")
        case BackendError():
            return 500, error_body(500, error.message)
        case ValidationException():
            return 400, error_body(400, *_invalid(error))
        case HTTPException(status_code=status) if status != 500:
            extra = error.extra if isinstance(error.extra, dict) else {}
            message = f"{error.detail}: {asked}" if error.detail == PHRASES.get(status) else error.detail
            return status, error_body(status, message, extra.get("param"), extra.get("code"))
        case _:
            return 500, error_body(500, "the server failed to answer; its log says why")


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorResponse]:
    """The edge: whatever is raised before the first byte of an answer ends here."""
    status, body = describe(error, where(request))
    report(request, error, body)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == 503:
        headers.setdefault("Retry-After", "1")
    return Response(ErrorResponse(body), status_code=status, headers=headers, media_type="application/json")


def report(request: Request[Any, Any, Any], error: Exception, body: ErrorInfo) -> None:
    """Leave the failure to whoever observes the request, and what is our fault to the log."""
    request.scope["state"]["error"] = body.message
    if isinstance(error, RequestError | HTTPException | BackendUnavailable):
        return
    log.error("%s (%s) failed", where(request), request_id(request.scope), exc_info=error)


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> ErrorInfo:
    """The envelope's inside; its type is that of the status."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return ErrorInfo(message, kind, param, code)


def _invalid(error: ValidationException) -> tuple[str, str | None]:
    """Litestar's own validation: of parameters in path, query and headers."""
    problems = error.extra if isinstance(error.extra, list) else []
    first = problems[0] if problems else {}
    return first.get("message", error.detail), first.get("key")
