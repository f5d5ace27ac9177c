"""Register the routes. Only a server imports Litestar, which takes half a second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fllm import hookimpl
from fllm_dialects.responses.options import ResponsesOptions

if TYPE_CHECKING:
    from fllm import RoutesContext

FLLM_OPTIONS = ResponsesOptions


@hookimpl
def fllm_routes(context: RoutesContext) -> Iterable[Any]:
    """Yield the handlers of all endpoints."""
    from fllm_dialects.responses.endpoints import endpoints

    yield from endpoints(context)
