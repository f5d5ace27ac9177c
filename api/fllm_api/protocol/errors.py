"""The one shape of every error."""

from __future__ import annotations

from msgspec import Struct


class ErrorInfo(Struct, frozen=True):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None = None
    """JSON path of the offending field, such as ``messages[0].role``."""
    code: str | None = None
    """A stable word for programs, such as ``model_not_found``."""


class ErrorResponse(Struct, frozen=True):
    """The body of every answer that is not a success, and the event of a stream that fails."""

    error: ErrorInfo
