"""Register the routes. Only a server imports Litestar, which takes half a second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fllm import hookimpl


@hookimpl
def fllm_routes() -> Iterable[Any]:
    """Yield the handlers of all endpoints."""
    from fllm_dialects.responses.create import create
    from fllm_dialects.responses.input_tokens import count_input_tokens

    yield from (create, count_input_tokens)
