"""Register the routes. Only a server imports Litestar, which takes half a second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fllm import hookimpl

if TYPE_CHECKING:
    from fllm import RoutesContext


@hookimpl
def fllm_routes(context: RoutesContext) -> Iterable[Any]:
    """Yield the handlers."""
    from fllm_dialects.ollama.descriptions import model_routes
    from fllm_dialects.ollama.embeddings import embedding_routes
    from fllm_dialects.ollama.routes import chat, generate

    yield from (chat, generate, *model_routes(context.server), *embedding_routes(context.server))
