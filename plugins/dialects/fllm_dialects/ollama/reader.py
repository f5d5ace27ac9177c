"""Turn Ollama's requests into a chat request or a completion request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from fllm import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    ContentPart,
    FunctionCall,
    ImageUrl,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedSchema,
    RequestError,
    ToolCall,
)
from fllm.concurrency.turn_executor import Pieces
from fllm_dialects.ollama.protocol import (
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaMessage,
    OllamaRequest,
    OllamaToolCall,
    Options,
)

Body = TypeVar("Body", OllamaChatRequest, OllamaGenerateRequest)
Read = TypeVar("Read", bound=ChatRequest | CompletionRequest)

FIELD_NAMES = {
    "max_tokens": "options.num_predict",
    "max_completion_tokens": "options.num_predict",
    "repetition_penalty": "options.repeat_penalty",
    "response_format": "format",
    "response_format.json_schema.schema": "format",
    "reasoning_effort": "think",
    "enable_thinking": "think",
    **{
        name: f"options.{name}"
        for name in (
            *("temperature", "top_p", "top_k", "min_p", "seed", "stop"),
            *("presence_penalty", "frequency_penalty"),
        )
    },
}
"""Fields of a chat request that have other names here."""

_SMALLEST_TOP_P = 1e-9


class ReadRequest(Struct, Generic[Read], frozen=True):
    """A request that was read, and what its fields are called in the body."""

    request: Read
    names: dict[str, str]


def read_request(body: Body, read: Callable[[Body], Read]) -> Pieces[ReadRequest[Read]]:
    """Return the request that a body stands for, in pieces, because it may have very many messages."""
    request = read(body)
    yield 0
    return ReadRequest(request, renamed_fields(body))


def read_chat(body: OllamaChatRequest) -> ChatRequest:
    """Return the chat request. Its messages have the indices of the body's."""
    return ChatRequest(
        **_shared_fields(body),
        **_chat_fields(body),
        messages=_messages(body.messages or ()),
        tools=body.tools,
    )


def read_generate(body: OllamaGenerateRequest) -> ChatRequest | CompletionRequest:
    """Return a chat of one message, or a completion if the prompt is ``raw`` or has a ``suffix``.

    Raise `RequestError` for what can't be honoured.
    """
    if body.template:
        raise RequestError(
            "`template` is not supported: a chat template is an option of the server (--chat-template)",
            param="template",
        )
    if body.context:
        raise RequestError("`context` is not supported: send the conversation to /api/chat", param="context")
    if body.raw or body.suffix:
        return _completion(body)
    sent = [OllamaMessage(role="system", content=body.system)] if body.system else []
    sent.append(OllamaMessage(role="user", content=body.prompt, images=body.images))
    return ChatRequest(**_shared_fields(body), **_chat_fields(body), messages=_messages(sent))


def renamed_fields(body: OllamaChatRequest | OllamaGenerateRequest) -> dict[str, str]:
    """Return the fields of the request that was read which have other names in the body."""
    if isinstance(body, OllamaGenerateRequest):
        user = f"messages[{int(bool(body.system))}].content"
        images = range(len(body.images or ()))
        return {
            **FIELD_NAMES,
            "messages": "prompt",
            "messages[0].content": "system",
            user: "prompt",
            **{f"{user}[{i}]": f"images[{i}]" for i in images},
        }
    return FIELD_NAMES | {
        f"messages[{at}].content[{i}]": f"messages[{at}].images[{i}]"
        for at, message in enumerate(body.messages or ())
        for i in range(len(message.images or ()))
    }


def _completion(body: OllamaGenerateRequest) -> CompletionRequest:
    what = "raw" if body.raw else "suffix"
    for name in ("system", "images", "think"):
        if getattr(body, name):
            raise RequestError(f"`{name}` can't be combined with `{what}`", param=name)
    return CompletionRequest(
        **_shared_fields(body),
        prompt=body.prompt or "",
        suffix=body.suffix or None,
        max_tokens=_max_tokens(body.options) or -1,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )


def _chat_fields(body: OllamaRequest) -> dict[str, Any]:
    effort = "none" if body.think is False else body.think or None
    return {
        "max_completion_tokens": _max_tokens(body.options),
        "logprobs": body.logprobs,
        "top_logprobs": body.top_logprobs if body.logprobs else None,
        "enable_thinking": True if body.think is True else None,
        "reasoning_effort": effort if isinstance(effort, str) else None,  # templates may have only efforts
    }


def _shared_fields(body: OllamaRequest) -> dict[str, Any]:
    options = body.options or Options()
    top_p = options.top_p
    return {
        "model": body.model,
        "stream": body.stream is not False,
        "temperature": options.temperature,
        "top_k": None if options.top_k is None else int(options.top_k),
        "top_p": None if top_p is None else min(max(top_p, _SMALLEST_TOP_P), 1.0),
        "min_p": options.min_p,
        "seed": None if options.seed is None or options.seed < 0 else min(int(options.seed), 2**63 - 1),
        "stop": options.stop,
        "repetition_penalty": options.repeat_penalty or (None if options.repeat_penalty is None else 1.0),
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "response_format": _format(body.format),
    }


def _max_tokens(options: Options | None) -> int | None:
    maximum = options.num_predict if options is not None else None
    return None if maximum is None or maximum < 1 else int(maximum)


def _format(given: dict[str, Any] | str | None) -> JsonObjectFormat | JsonSchemaFormat | None:
    if not given:
        return None
    if isinstance(given, str):
        return JsonObjectFormat()
    return JsonSchemaFormat(json_schema=NamedSchema(schema=given))


def _messages(messages: Sequence[OllamaMessage]) -> list[ChatMessage]:
    return [
        ChatMessage(
            role=message.role,
            content=_content(message),
            thinking=message.thinking,
            tool_name=message.tool_name,
            tool_call_id=message.tool_call_id,
            tool_calls=[_tool_call(call) for call in message.tool_calls or ()] or None,
        )
        for message in messages
    ]


def _content(message: OllamaMessage) -> str | list[ContentPart]:
    text = message.content or ""
    if not message.images:
        return text
    images = [ContentPart("image_url", image_url=ImageUrl(_data_url(image))) for image in message.images]
    return [*images, ContentPart("text", text=text)] if text else images


def _data_url(image: str) -> str:
    return image if image.startswith("data:") else f"data:;base64,{image}"


def _tool_call(call: OllamaToolCall) -> ToolCall:
    return ToolCall(FunctionCall(call.function.name, call.function.arguments), id=call.id)
