"""Turn a request into a chat of the server."""

from __future__ import annotations

import json
from typing import Literal

from fllm import (
    ChatMessage,
    ChatRequest,
    ChatTool,
    ContentPart,
    FunctionCall,
    FunctionDefinition,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedSchema,
    RequestError,
)
from fllm import ToolCall as ChatToolCall
from fllm_cohere.requests import (
    AssistantMessage,
    CohereRequest,
    DocumentPart,
    ImagePart,
    JsonResponse,
    Message,
    SystemMessage,
    TextPart,
    ThinkingPart,
    Tool,
    ToolCall,
    ToolMessage,
)

_TOOL_CHOICES: dict[str, Literal["required", "none"]] = {"REQUIRED": "required", "NONE": "none"}


def read_chat(request: CohereRequest) -> ChatRequest:
    """Return the chat. Raise `RequestError` for what this plugin does not support."""
    if request.documents:
        raise RequestError("`documents` are not supported: put them into a message", param="documents")
    if request.logprobs:
        raise RequestError("`logprobs` are not supported", param="logprobs")
    thinking = request.thinking
    return ChatRequest(
        model=request.model,
        messages=[_message(each) for each in request.messages],
        stream=request.stream,
        tools=[_tool(each, strict=request.strict_tools) for each in request.tools or ()] or None,
        tool_choice=None if request.tool_choice is None else _TOOL_CHOICES[request.tool_choice],
        response_format=_format(request),
        enable_thinking=None if thinking is None else thinking.type == "enabled",
        thinking_token_budget=None if thinking is None else thinking.token_budget,
        max_tokens=request.max_tokens,
        stop=request.stop_sequences,
        temperature=request.temperature,
        seed=request.seed,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        top_k=request.k or None,  # 0: no limit
        top_p=request.p,
    )


def _message(message: Message) -> ChatMessage:
    match message:
        case AssistantMessage():
            return _assistant(message)
        case ToolMessage(tool_call_id=call, content=content):
            return ChatMessage(role="tool", content=_text(content), tool_call_id=call)
        case SystemMessage(content=content):
            return ChatMessage(role="system", content=_text(content))
        case _:
            if isinstance(message.content, str):
                return ChatMessage(role="user", content=message.content)
            return ChatMessage(role="user", content=[_part(part) for part in message.content])


def _assistant(message: AssistantMessage) -> ChatMessage:
    parts = message.content if isinstance(message.content, list) else []
    text = message.content if isinstance(message.content, str) else _text(parts)
    reasoning = "".join(part.thinking for part in parts if isinstance(part, ThinkingPart))
    return ChatMessage(
        role="assistant",
        content=text or message.tool_plan,
        reasoning_content=reasoning or None,
        tool_calls=[_call(each) for each in message.tool_calls or ()] or None,
    )


def _part(part: TextPart | ImagePart) -> ContentPart:
    if isinstance(part, TextPart):
        return ContentPart(type="text", text=part.text)
    return ContentPart(type="image_url", image_url=part.image_url)


def _text(
    content: str | list[TextPart] | list[TextPart | ThinkingPart] | list[TextPart | DocumentPart],
) -> str:
    """Return the text of parts; a document becomes JSON."""
    if isinstance(content, str):
        return content
    texts = [
        part.text if isinstance(part, TextPart) else json.dumps(part.document, ensure_ascii=False)
        for part in content
        if not isinstance(part, ThinkingPart)
    ]
    return "\n".join(texts)


def _call(call: ToolCall) -> ChatToolCall:
    return ChatToolCall(id=call.id, function=FunctionCall(call.function.name, call.function.arguments))


def _tool(tool: Tool, *, strict: bool | None) -> ChatTool:
    function = tool.function
    return ChatTool(FunctionDefinition(function.name, function.description, function.parameters, strict))


def _format(request: CohereRequest) -> JsonObjectFormat | JsonSchemaFormat | None:
    if not isinstance(request.response_format, JsonResponse):
        return None
    schema = request.response_format.json_schema
    return JsonObjectFormat() if schema is None else JsonSchemaFormat(NamedSchema(schema=schema))
