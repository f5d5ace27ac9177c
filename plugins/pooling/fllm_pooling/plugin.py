"""Register the routes. Only a server imports Litestar, which takes half a second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fllm import hookimpl


@hookimpl
def fllm_routes() -> Iterable[Any]:
    """Yield the handlers of all endpoints."""
    from fllm_pooling.classify import classify
    from fllm_pooling.embeddings import embeddings
    from fllm_pooling.rerank import rerank
    from fllm_pooling.score import score

    yield from (embeddings, rerank, score, classify)
