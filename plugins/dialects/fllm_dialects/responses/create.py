"""`POST /v1/responses`."""

from __future__ import annotations

from litestar import post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse

from fllm import NAMED_EVENTS, USES_ENGINE, RequestError, Serving
from fllm_dialects.responses.new_generation import new_generation
from fllm_dialects.responses.protocol.requests import ResponsesRequest
from fllm_dialects.responses.protocol.responses import Response


@post(
    "/v1/responses",
    status_code=200,
    opt={**USES_ENGINE, "framing": NAMED_EVENTS},
    tags=["OpenAI"],
    summary="Create a response",
    responses={200: ResponseSpec(Response, description="The response", generate_examples=False)},
)
async def create(data: JSONBody[ResponsesRequest], server: NamedDependency[Serving]) -> ASGIResponse:
    """Return a response as one JSON object or as a stream of events."""
    for name in ("previous_response_id", "conversation", "background"):
        if getattr(data, name):
            raise RequestError(
                f"`{name}` is not supported: the server stores no responses",
                param=name,
                code="unsupported_parameter",
            )
    generation, encoder = await new_generation(server, data)
    response: ASGIResponse = server.respond(generation, encoder, stream=bool(data.stream))
    return response
