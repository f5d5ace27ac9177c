"""The body of an error."""

from __future__ import annotations

from msgspec import Struct

from fllm import ErrorInfo


class ErrorBody(Struct, frozen=True):
    """OpenAI's envelope of errors."""

    error: ErrorInfo
