"""Register the routes. Only a server imports Litestar, which takes half a second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fllm import hookimpl


@hookimpl
def fllm_routes() -> Iterable[Any]:
    """Yield the handlers of both endpoints."""
    from fllm_dialects.messages.endpoints import count_tokens, messages

    yield from (messages, count_tokens)
