"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Callable

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from fllm.chat.template import SlowTemplate
from fllm.interfaces import USES_ENGINE
from fllm.requests.chat import ChatRequest, NamedToolChoice
from fllm.values import PreparedImages
from fllm_api.app_state import AppState
from fllm_api.controllers.responses import GenerationResponse, create_response
from fllm_api.encoding.chat import ChatEncoder
from fllm_api.encoding.encoder import ResponseHeader, new_id
from fllm_api.encoding.logprobs import TokenFormatter
from fllm_api.encoding.token_details import token_details
from fllm_api.encoding.usage import UsageAccumulator
from fllm_api.intake.chat import PreparedChat, prepare_chat
from fllm_api.intake.images import has_images, read_images
from fllm_api.intake.json_body import ApiRequest
from fllm_api.intake.preparation import prepare
from fllm_api.lifecycle.client_disconnect import run_while_connected
from fllm_api.openapi.responses import StreamedOperation, errors, success
from fllm_api.protocol.chat import ChatCompletion
from fllm_api.request_context import context_of


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
        self, request: ApiRequest, data: JSONBody[ChatRequest], server: NamedDependency[AppState]
    ) -> GenerationResponse:
        """Return a chat completion as one JSON object or as a stream of events."""
        images = await _read_images(request, data, server)
        try:
            prepared = await _prepare(request, data, server, images)
        except SlowTemplate:
            prepared = await _prepare(request, data, server, images)
        encoder = _new_encoder(data, prepared, server)
        return create_response(request, server, prepared.request, encoder, stream=bool(data.stream))


async def _read_images(request: ApiRequest, body: ChatRequest, server: AppState) -> PreparedImages | None:
    if not has_images(body.messages):
        return None
    work = read_images(body.messages, server, context_of(request.scope).client)
    return await run_while_connected(request.receive, work)


async def _prepare(
    request: ApiRequest, body: ChatRequest, server: AppState, images: PreparedImages | None
) -> PreparedChat:
    """Return the prepared request. Raise `SlowTemplate` if it must be prepared again in another thread."""
    slow = body.chat_template is not None or (server.template is not None and server.template.slow)
    turns = server.template_turns if slow else server.turns
    return await prepare(request, prepare_chat(body, server, images), turns, slow=slow)


def _call_id_factory(body: ChatRequest, server: AppState) -> Callable[[], str] | None:
    """Return what makes ids of calls that the chat template accepts, if it demands a form of its own."""
    return server.template.call_id_factory if server.template and body.chat_template is None else None


def _new_encoder(body: ChatRequest, prepared: PreparedChat, server: AppState) -> ChatEncoder:
    [prompt] = prepared.request.prompts
    tool_parser = prepared.request.tool_parser
    formatter = TokenFormatter(server.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
    return ChatEncoder(
        ResponseHeader(new_id("chatcmpl-"), server.model_name(prepared.request.adapter)),
        UsageAccumulator(len(prompt), prepared.request.n, body.stream_options),
        role=prepared.role,
        formatter=formatter if body.logprobs else None,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        named_call=isinstance(body.tool_choice, NamedToolChoice),
        new_call_id=(tool_parser and tool_parser.new_call_id) or _call_id_factory(body, server),
        echo=prepared.echo,
        include_reasoning=prepared.includes_reasoning,
        reasoning_field=server.config.reasoning_field,
        details=token_details(body, prepared.request, formatter),
    )
