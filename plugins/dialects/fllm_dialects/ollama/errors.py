"""The body of errors."""

from __future__ import annotations

from fllm import ErrorInfo
from fllm_dialects.ollama.protocol import OllamaError


def ollama_error(status: int, error: ErrorInfo, request_id: str) -> OllamaError:  # noqa: ARG001
    """Return the body of an error."""
    return OllamaError(error.message)
