"""The hook of this package. Only a server imports Litestar, which takes half a second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fllm import hookimpl


@hookimpl
def fllm_routes() -> Iterable[Any]:
    """Yield `POST /v2/chat`."""
    from fllm_cohere.route import chat

    yield chat
