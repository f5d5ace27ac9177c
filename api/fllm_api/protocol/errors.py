"""Body of every error response."""

from __future__ import annotations

from msgspec import Struct

from fllm.serving import ErrorInfo


class ErrorResponse(Struct, frozen=True):
    """Body of every error response, and the error event of a stream."""

    error: ErrorInfo
