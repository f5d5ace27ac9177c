"""`/api/embed`, and the older `/api/embeddings`, through `/v1/embeddings`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from msgspec import Struct

from fllm import ANY_CONTENT_TYPE, RunningServer, Serving, error_body
from fllm_dialects.ollama.errors import ollama_error
from fllm_dialects.ollama.protocol import OllamaError


class EmbedRequest(Struct, frozen=True, kw_only=True):
    """Body of `/api/embed`."""

    model: str
    input: str | list[str]
    truncate: bool | None = None
    """Cut texts that are too long at their ends, which is the default."""
    dimensions: int | None = None
    options: Any = None
    keep_alive: Any = None


class Embedded(Struct, frozen=True, kw_only=True):
    """Response of `/api/embed`."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    """Nanoseconds."""
    load_duration: int
    prompt_eval_count: int


class EmbeddingsRequest(Struct, frozen=True, kw_only=True):
    """Body of `/api/embeddings`."""

    model: str
    prompt: str
    options: Any = None
    keep_alive: Any = None


class Embedding(Struct, frozen=True):
    """Response of `/api/embeddings`."""

    embedding: list[float]


class _Vector(Struct, frozen=True):
    embedding: list[float]


class _Usage(Struct, frozen=True):
    prompt_tokens: int


class _Vectors(Struct, frozen=True):
    data: list[_Vector]
    usage: _Usage


_NO_VECTORS = _Vectors([], _Usage(0))
"""Of a request without a text, which only loads the model."""


class _Error(Struct, frozen=True):
    message: str


class _Failure(Struct, frozen=True):
    error: _Error


def embedding_routes(running: RunningServer) -> Iterable[HTTPRouteHandler]:
    """Return the handlers."""

    async def vectors(body: dict[str, Any], server: Serving) -> _Vectors | Response[OllamaError]:
        found = await running.call(
            "POST", "/v1/embeddings", msgspec.json.encode(body), client=server.client, owner=server.owner
        )
        if found.status == 200:
            return msgspec.json.decode(found.body, type=_Vectors)
        error = msgspec.json.decode(found.body, type=_Failure).error
        return Response(OllamaError(error.message), status_code=found.status)

    @post(
        "/api/embed",
        status_code=200,
        opt={**ANY_CONTENT_TYPE, **error_body(ollama_error)},
        tags=["Ollama"],
        summary="Create embeddings",
        responses={200: ResponseSpec(Embedded, description="The response", generate_examples=False)},
    )
    async def embed(data: JSONBody[EmbedRequest], server: NamedDependency[Serving]) -> Response[Any]:
        """Return an embedding of each text."""
        began = time.monotonic_ns()
        cut = {} if data.truncate is False else {"truncate_prompt_tokens": -1, "truncation_side": "right"}
        body = {"model": data.model, "input": data.input, "dimensions": data.dimensions, **cut}
        found = await vectors(body, server) if data.input else _NO_VECTORS
        if isinstance(found, Response):
            return found
        return Response(
            Embedded(
                model=server.served_model_name,
                embeddings=[each.embedding for each in found.data],
                total_duration=time.monotonic_ns() - began,
                load_duration=0,
                prompt_eval_count=found.usage.prompt_tokens,
            )
        )

    @post(
        "/api/embeddings",
        status_code=200,
        opt={**ANY_CONTENT_TYPE, **error_body(ollama_error)},
        tags=["Ollama"],
        summary="Create an embedding (older form)",
        responses={200: ResponseSpec(Embedding, description="The response", generate_examples=False)},
    )
    async def embeddings(
        data: JSONBody[EmbeddingsRequest], server: NamedDependency[Serving]
    ) -> Response[Any]:
        """Return an embedding of one text."""
        body = {"model": data.model, "input": data.prompt, "truncate_prompt_tokens": -1}
        found = await vectors(body, server) if data.prompt else _NO_VECTORS
        if isinstance(found, Response):
            return found
        return Response(Embedding(found.data[0].embedding if found.data else []))

    return embed, embeddings
