"""`POST /v1/chat/completions`."""

from __future__ import annotations

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse

from fllm.requests.chat import ChatRequest, NamedToolChoice
from fllm.serving import DATA_EVENTS, USES_ENGINE
from fllm_api.encoding.chat import ChatEncoder
from fllm_api.encoding.encoder import ResponseHeader, new_id
from fllm_api.encoding.logprobs import TokenFormatter
from fllm_api.encoding.token_details import token_details
from fllm_api.encoding.usage import UsageAccumulator
from fllm_api.openapi.responses import StreamedOperation, errors, success
from fllm_api.protocol.chat import ChatCompletion
from fllm_api.serving.generation import ServedGeneration
from fllm_api.serving.request_serving import RequestServing


class ChatController(Controller):
    """Creates chat completions."""

    path = "/v1/chat/completions"
    tags = ("OpenAI",)
    opt = USES_ENGINE

    @post(
        status_code=200,
        operation_class=StreamedOperation,
        responses={**success(ChatCompletion), **errors(400, 401, 404, 413, 415, 429, 500, 503, 504)},
        summary="Create a chat completion",
    )
    async def create(
        self, data: JSONBody[ChatRequest], server: NamedDependency[RequestServing]
    ) -> ASGIResponse:
        """Return a chat completion as one JSON object or as a stream of events."""
        generation = await server.read_chat(data)
        encoder = _new_encoder(data, generation, server)
        return server.respond(generation, encoder, stream=bool(data.stream), framing=DATA_EVENTS)


def _new_encoder(body: ChatRequest, generation: ServedGeneration, server: RequestServing) -> ChatEncoder:
    formatter = TokenFormatter(server.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
    return ChatEncoder(
        ResponseHeader(new_id("chatcmpl-"), generation.model, generation.created),
        UsageAccumulator(generation.prompt_tokens, generation.request.n, body.stream_options),
        role=generation.role,
        formatter=formatter if body.logprobs else None,
        named_call=isinstance(body.tool_choice, NamedToolChoice),
        echo=generation.echo,
        reasoning_field=server.state.config.reasoning_field,
        details=token_details(body, generation.request, formatter),
    )
