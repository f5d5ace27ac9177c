"""The response object at the beginning, from the request and how it was read."""

from __future__ import annotations

from msgspec.structs import replace

from fllm import Generation, TextFormat
from fllm_dialects.responses.protocol.requests import (
    ConversationRef,
    ReasoningParam,
    ResponsesRequest,
    TextOptions,
)
from fllm_dialects.responses.protocol.responses import Response
from fllm_dialects.responses.protocol.tools import ToolParam


def new_response(
    body: ResponsesRequest,
    generation: Generation,
    tools: list[ToolParam],
    *,
    response_id: str,
    store: bool = False,
) -> Response:
    """Return a response without output. Its fields tell what holds, also where the request is silent."""
    sampling = generation.request.sampling
    text = body.text or TextOptions()
    conversation = body.conversation
    response = Response(
        id=response_id,
        created_at=generation.created,
        status="in_progress",
        background=bool(body.background),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        metadata=body.metadata or {},
        model=generation.model,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        prompt_cache_key=body.prompt_cache_key,
        reasoning=ReasoningParam(effort=body.reasoning.effort if body.reasoning else None),
        safety_identifier=body.safety_identifier,
        store=store,
        temperature=sampling.temperature,
        text=TextOptions(format=text.format or TextFormat(), verbosity="medium"),
        tool_choice=body.tool_choice or "auto",
        tools=tools,
        top_logprobs=body.top_logprobs or 0,
        top_p=sampling.top_p,
        truncation=body.truncation or "disabled",
        user=body.user,
    )
    if conversation is None:
        return response
    reference = ConversationRef(conversation) if isinstance(conversation, str) else conversation
    return replace(response, conversation=reference)
