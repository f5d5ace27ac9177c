"""`POST /v2/chat`. The server applies keys, limits, metrics and deadlines to it."""

from __future__ import annotations

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse

from fllm import NAMED_EVENTS, USES_ENGINE, ErrorInfo, Serving, error_body
from fllm_cohere.encoder import CohereEncoder
from fllm_cohere.reader import read_chat
from fllm_cohere.requests import CohereRequest
from fllm_cohere.responses import CohereError


def cohere_error(status: int, error: ErrorInfo, request_id: str) -> CohereError:  # noqa: ARG001
    """Return the body of an error, in Cohere's form."""
    return CohereError(id=request_id, message=error.message)


@post(
    "/v2/chat",
    status_code=200,
    opt={**USES_ENGINE, **error_body(cohere_error)},
    tags=["Cohere"],
    summary="Chat, as in version 2 of Cohere's API",
)
async def chat(data: JSONBody[CohereRequest], server: NamedDependency[Serving]) -> ASGIResponse:
    """Return the message as one JSON object, or as a stream of events."""
    generation = await server.read_chat(read_chat(data))
    encoder = CohereEncoder(server.request_id)
    response: ASGIResponse = server.respond(generation, encoder, stream=data.stream, framing=NAMED_EVENTS)
    return response
