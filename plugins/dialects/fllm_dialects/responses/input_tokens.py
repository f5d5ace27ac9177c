"""`POST /v1/responses/input_tokens`."""

from __future__ import annotations

from litestar import post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody

from fllm import LIMITED, Serving
from fllm_dialects.field_names import field_names
from fllm_dialects.responses.protocol.requests import InputTokensRequest
from fllm_dialects.responses.protocol.responses import InputTokens
from fllm_dialects.responses.reader import is_long, read_in_pieces
from fllm_dialects.responses.stored.history import references
from fllm_dialects.responses.stored.service import ResponseService


@post(
    "/v1/responses/input_tokens",
    status_code=200,
    opt=dict(LIMITED),
    tags=["OpenAI"],
    summary="Count the tokens of a response's input",
    responses={200: ResponseSpec(InputTokens, description="The response", generate_examples=False)},
)
async def count_input_tokens(
    data: JSONBody[InputTokensRequest],
    server: NamedDependency[Serving],
    stored: NamedDependency[ResponseService],
) -> InputTokens:
    """Return the number of tokens of the prompt that a request for a response has."""
    wanted = await server.prepare(references(data))
    context = await stored.history.context(data, server.owner, wanted)
    reading = read_in_pieces(data, earlier=context.items, references=context.references)
    request = await server.prepare(reading, slow=is_long(context.items))
    with field_names(request.field_names):
        return InputTokens(len(await server.tokenize_chat(request.chat)))
