"""Body of every error response."""

from __future__ import annotations

from msgspec import Struct


class ErrorInfo(Struct, frozen=True):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None = None
    """JSON path of the offending field, such as ``messages[0].role``."""
    code: str | None = None
    """Stable, machine-readable code, such as ``model_not_found``."""


class ErrorResponse(Struct, frozen=True):
    """Body of every error response, and the error event of a stream."""

    error: ErrorInfo
