"""`POST /v1/responses`."""

from __future__ import annotations

from litestar import post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse

from fllm import NAMED_EVENTS, USES_ENGINE, Serving
from fllm_dialects.event_stream import EventStreamOperation
from fllm_dialects.responses.new_generation import new_generation
from fllm_dialects.responses.protocol.requests import ResponsesRequest
from fllm_dialects.responses.protocol.responses import Response
from fllm_dialects.responses.stored.history import references
from fllm_dialects.responses.stored.jobs import Job
from fllm_dialects.responses.stored.service import ResponseService


@post(
    "/v1/responses",
    status_code=200,
    opt={**USES_ENGINE, "framing": NAMED_EVENTS},
    tags=["OpenAI"],
    summary="Create a response",
    operation_class=EventStreamOperation,
    responses={200: ResponseSpec(Response, description="The response", generate_examples=False)},
)
async def create(
    data: JSONBody[ResponsesRequest],
    server: NamedDependency[Serving],
    stored: NamedDependency[ResponseService],
) -> ASGIResponse:
    """Return a response as one JSON object or as a stream of events."""
    history, owner = stored.history, server.owner
    keeps = history.keeps(data)
    context = await history.context(data, owner, await server.prepare(references(data)))
    generation, encoder = await new_generation(
        server, data, earlier=context.items, references=context.references, store=keeps
    )
    request = await server.prepare(history.request(data, context, owner))
    if data.background and request is not None:
        return await stored.start(Job(data, context, encoder, request, server.client), server)
    on_end = None if request is None else history.on_end(request, encoder, stream=bool(data.stream))
    response: ASGIResponse = server.respond(generation, encoder, stream=bool(data.stream), on_end=on_end)
    return response
