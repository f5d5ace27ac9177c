"""Register the routes. Only a server imports Litestar, which takes half a second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fllm import RoutesContext, hookimpl
from fllm_dialects.responses.options import ResponsesOptions

FLLM_OPTIONS = ResponsesOptions


@hookimpl
def fllm_routes(context: RoutesContext) -> Iterable[Any]:
    """Yield the handlers of all endpoints."""
    from fllm_dialects.responses.endpoints import endpoints

    yield from endpoints(context)
