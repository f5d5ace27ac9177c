"""The handlers of `/api/chat` and `/api/generate`."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from litestar import post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse

from fllm import (
    ANY_CONTENT_TYPE,
    JSON_LINES,
    USES_ENGINE,
    CompletionRequest,
    Serving,
    error_body,
)
from fllm_dialects.field_names import field_names
from fllm_dialects.ollama.encoder import OllamaChatEncoder, OllamaGenerateEncoder, timestamp
from fllm_dialects.ollama.errors import ollama_error
from fllm_dialects.ollama.protocol import (
    OllamaChatChunk,
    OllamaChatRequest,
    OllamaChunk,
    OllamaGenerateChunk,
    OllamaGenerateRequest,
    OllamaMessage,
    OllamaRequest,
)
from fllm_dialects.ollama.reader import read_chat, read_generate, read_request

_OPTIONS = {**USES_ENGINE, **ANY_CONTENT_TYPE, **error_body(ollama_error, JSON_LINES)}
_NO_TIME = (0, "0", "0s", "0m", "0h")
"""Values of ``keep_alive`` that unload a model."""

_spec = partial(ResponseSpec, description="The response, or one line of its stream", generate_examples=False)


@post(
    "/api/chat",
    status_code=200,
    opt=_OPTIONS,
    tags=["Ollama"],
    summary="Create a chat response",
    responses={200: _spec(OllamaChatChunk)},
)
async def chat(data: JSONBody[OllamaChatRequest], server: NamedDependency[Serving]) -> ASGIResponse:
    """Return a message as a stream of JSON lines, or as one object."""
    if not data.messages:
        message = OllamaMessage(role="assistant", content="")
        return _whole(OllamaChatChunk(message=message, **_loaded(data, server)))
    read = await server.prepare(read_request(data, read_chat))
    with field_names(read.names):
        generation = await server.read_chat(read.request)
    encoder = OllamaChatEncoder(
        generation.model, generation.record, server.tokenizer if data.logprobs else None
    )
    response: ASGIResponse = server.respond(
        generation, encoder, stream=data.stream is not False, framing=JSON_LINES
    )
    return response


@post(
    "/api/generate",
    status_code=200,
    opt=_OPTIONS,
    tags=["Ollama"],
    summary="Continue a prompt",
    responses={200: _spec(OllamaGenerateChunk)},
)
async def generate(data: JSONBody[OllamaGenerateRequest], server: NamedDependency[Serving]) -> ASGIResponse:
    """Return a response as a stream of JSON lines, or as one object."""
    if not (data.prompt or data.images or data.suffix):
        return _whole(OllamaGenerateChunk(response="", **_loaded(data, server)))
    read = await server.prepare(read_request(data, read_generate))
    with field_names(read.names):
        if isinstance(read.request, CompletionRequest):
            generation = await server.read_completion(read.request)
        else:
            generation = await server.read_chat(read.request)
    encoder = OllamaGenerateEncoder(
        generation.model, generation.record, server.tokenizer if data.logprobs else None
    )
    response: ASGIResponse = server.respond(
        generation, encoder, stream=data.stream is not False, framing=JSON_LINES
    )
    return response


def _whole(chunk: OllamaChunk) -> ASGIResponse:
    return ASGIResponse(body=msgspec.json.encode(chunk), media_type="application/json")


def _loaded(body: OllamaRequest, server: Serving) -> dict[str, Any]:
    """Return the fields of the response to a request without a prompt. The model is loaded before it is read.

    Whether it is unloaded is up to the server.
    """
    return {
        "model": server.served_model_name,
        "created_at": timestamp(),
        "done": True,
        "done_reason": "unload" if body.keep_alive in _NO_TIME else "load",
    }
