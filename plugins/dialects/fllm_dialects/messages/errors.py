"""Errors in Anthropic's envelope."""

from __future__ import annotations

import re

from msgspec import UNSET

from fllm import ErrorInfo
from fllm_dialects.messages.events import ErrorBody, ErrorDetails, ErrorResponse

THREAD_UNSUPPORTED = "thread_unsupported_request"
"""Code of the error for ``thread``. Anthropic's SDKs then send all messages, without ``thread``."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Error type by status. Others are ``invalid_request_error`` below 500 and ``api_error`` from 500."""

_TOO_LONG = re.compile(
    r"The prompt is too long: (?P<rest>.*? is (?P<most>\d+) tokens, and .*?(?P<known>\d+) tokens.*)"
)
"""The message for a prompt that exceeds the context, and how many tokens the prompt has at least."""


def error_response(status: int, error: ErrorInfo, request_id: str) -> ErrorResponse:
    """Return the body of an error response."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    details = ErrorDetails(error.code) if error.code == THREAD_UNSUPPORTED else UNSET
    return ErrorResponse(ErrorBody(kind, _message(error), details), request_id)


def error_event(error: ErrorInfo) -> ErrorResponse:
    """Return the event for an error in a stream, whose status has been sent."""
    kind = "overloaded_error" if error.code == "unavailable" else error.type
    return ErrorResponse(ErrorBody("api_error" if kind == "server_error" else kind, _message(error)))


def _message(error: ErrorInfo) -> str:
    """Return the message with the path of the field, which the envelope has no place for."""
    if too_long := _TOO_LONG.fullmatch(error.message):
        # Claude Code recognises these words, and reads both numbers.
        limit = int(too_long["most"]) - 1
        return f"prompt is too long: {too_long['known']} tokens > {limit} maximum; {too_long['rest']}"
    if error.param is None or error.param in error.message:
        return error.message
    return f"{error.param}: {error.message}"
