"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from __future__ import annotations

from litestar import post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse

from fllm import LIMITED, USES_ENGINE, Serving, error_body
from fllm_dialects.event_stream import EventStreamOperation
from fllm_dialects.field_names import field_names
from fllm_dialects.messages.encoder import MessageEncoder, MessageHeader
from fllm_dialects.messages.errors import error_response
from fllm_dialects.messages.events import Message, TokenCount
from fllm_dialects.messages.ids import new_message_id
from fllm_dialects.messages.protocol import CountTokensRequest, MessagesRequest
from fllm_dialects.messages.reader import read_request

_ERRORS = error_body(error_response, request_id_header="request-id")


@post(
    "/v1/messages",
    status_code=200,
    opt={**USES_ENGINE, **_ERRORS},
    tags=["Anthropic"],
    summary="Create a message",
    operation_class=EventStreamOperation,
    responses={200: ResponseSpec(Message, description="The response", generate_examples=False)},
)
async def messages(data: JSONBody[MessagesRequest], server: NamedDependency[Serving]) -> ASGIResponse:
    """Return a message, or the events of its stream."""
    read = await server.prepare(read_request(data))
    with field_names(read.names):
        generation = await server.read_chat(read.chat)
    header = MessageHeader(
        id=new_message_id(),
        model=generation.model,
        prompt_tokens=generation.prompt_tokens,
        max_tokens=data.max_tokens,
        context_management=data.context_management is not None,
    )
    response: ASGIResponse = server.respond(generation, MessageEncoder(header), stream=bool(data.stream))
    return response


@post(
    "/v1/messages/count_tokens",
    status_code=200,
    opt={**LIMITED, **_ERRORS},
    tags=["Anthropic"],
    summary="Count the input tokens of a message",
)
async def count_tokens(data: JSONBody[CountTokensRequest], server: NamedDependency[Serving]) -> TokenCount:
    """Return the number of tokens that the prompt of a message would have."""
    read = await server.prepare(read_request(data))
    with field_names(read.names):
        return TokenCount(len(await server.tokenize_chat(read.chat)))
