"""Read the body of a request as a chat request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from fllm import (
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedSchema,
    RequestError,
    TextFormat,
)
from fllm.concurrency.turn_executor import Pieces
from fllm_dialects.responses.conversation import Conversation, resolve_references
from fllm_dialects.responses.protocol.items import InputItem
from fllm_dialects.responses.protocol.requests import (
    InputTokensRequest,
    ReasoningParam,
    ResponsesRequest,
    SchemaFormat,
    TextOptions,
)
from fllm_dialects.responses.tools import ToolSet, read_choice, read_tools

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED_REASONING = "reasoning.encrypted_content"
_FEW_ITEMS = 64
"""Number of items that are read in less than a millisecond."""
_INCLUDABLE = (
    LOGPROBS,
    ENCRYPTED_REASONING,
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
)
"""OpenAI's values. Those of calls of hosted tools have no effect, because there are none."""
_FIELD_NAMES = {
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "logprobs": "include",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "response_format.json_schema": "text.format",
}


class ReadRequest(Struct, frozen=True):
    """A request as a chat request, and how both relate."""

    chat: ChatRequest
    tools: ToolSet
    field_names: dict[str, str]
    """Path in the request by the path in the chat request."""


def read_request(
    body: InputTokensRequest,
    *,
    earlier: Sequence[InputItem] = (),
    references: Mapping[str, InputItem] | None = None,
) -> ReadRequest:
    """Return the chat request. Raise `RequestError` for what is invalid or not supported.

    ``earlier`` are the items before the input: those of previous responses and of the conversation.
    ``references`` has the stored items that the input refers to, by id.
    """
    reasoning, text = body.reasoning or ReasoningParam(), body.text or TextOptions()
    tools = read_tools(body.tools or (), body.tool_choice)
    conversation = _read_conversation(body, earlier, references or {})
    chat = ChatRequest(
        model=body.model,
        messages=conversation.messages,
        # As in OpenAI's API, the response is a message of its own, also after a message of the assistant.
        add_generation_prompt=True,
        continue_final_message=False,
        tools=tools.functions or None,
        tool_choice=read_choice(body.tool_choice, tools) if tools.functions or body.tool_choice else None,
        parallel_tool_calls=body.parallel_tool_calls,
        reasoning_effort=reasoning.effort,
        response_format=_read_format(text),
        chat_template_kwargs=body.chat_template_kwargs,
    )
    if isinstance(body, ResponsesRequest):
        chat = _with_sampling(chat, body)
    return ReadRequest(chat, tools, {**_FIELD_NAMES, **_names_of_tools(tools), **conversation.names})


def _names_of_tools(tools: ToolSet) -> dict[str, str]:
    names: dict[str, str] = {}
    for i, (tool, path) in enumerate(zip(tools.functions, tools.paths, strict=True)):
        names[f"tools[{i}].function"] = path
        if tools.called[tool.function.name].kind == "custom":  # its schema stands for its format
            names |= {f"tools[{i}].function.{field}": f"{path}.format" for field in ("parameters", "strict")}
    return names


def read_in_pieces(
    body: InputTokensRequest,
    *,
    earlier: Sequence[InputItem] = (),
    references: Mapping[str, InputItem] | None = None,
) -> Pieces[ReadRequest]:
    """Return what `read_request` does, as work for `fllm.Serving.prepare`."""
    yield 0
    return read_request(body, earlier=earlier, references=references)


def is_long(earlier: Sequence[InputItem]) -> bool:
    """Return whether the items before the input take long to read, however small the body is."""
    return len(earlier) > _FEW_ITEMS


def _read_conversation(
    body: InputTokensRequest, earlier: Sequence[InputItem], references: Mapping[str, InputItem]
) -> Conversation:
    conversation = Conversation()
    if body.instructions:
        conversation.add_instructions(body.instructions)
    conversation.add(earlier, "input")
    if isinstance(body.input, str):
        conversation.add_text(body.input)
    elif body.input is not None:
        conversation.add(resolve_references(body.input, references))
    elif not earlier:
        raise RequestError("`input` is missing", param="input")
    if not conversation.messages:
        raise RequestError("`input` has no message", param="input")
    return conversation


def _with_sampling(chat: ChatRequest, body: ResponsesRequest) -> ChatRequest:
    """Return the chat request with the fields that the prompt does not depend on."""
    include = _read_include(body)
    if body.top_logprobs and LOGPROBS not in include:
        raise RequestError(f'`top_logprobs` requires `include`: ["{LOGPROBS}"]', param="top_logprobs")
    if body.stream_options is not None and body.stream_options.include_obfuscation:
        _refuse("stream_options.include_obfuscation", "the server does not obfuscate events")
    if body.prompt is not None:
        _refuse("prompt", "the server stores no prompts; send `instructions` and `input`")
    if body.context_management:
        _refuse("context_management", "the server does not compact conversations")
    same = (
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "seed",
        "priority",
        "cache_salt",
        "service_tier",
        "user",
    )
    return replace(
        chat,
        max_completion_tokens=body.max_output_tokens,
        logprobs=LOGPROBS in include or None,
        top_logprobs=body.top_logprobs or None,
        **{name: getattr(body, name) for name in same},
    )


def _read_include(body: ResponsesRequest) -> Sequence[str]:
    include = body.include or ()
    for i, value in enumerate(include):
        if value not in _INCLUDABLE:
            raise RequestError(f"`include[{i}]`: {value!r} is unknown", param=f"include[{i}]")
    if ENCRYPTED_REASONING in include and body.store is not False:
        # Codex requests it always, with `store`: false, and does without it.
        _refuse(
            "include",
            f"{ENCRYPTED_REASONING!r} is accepted only with `store`: false, and is null there; the `content` "
            "of a reasoning item has the reasoning as it is",
        )
    return include


def _read_format(text: TextOptions) -> TextFormat | JsonObjectFormat | JsonSchemaFormat | None:
    if not isinstance(text.format, SchemaFormat):
        return text.format
    schema = text.format
    return JsonSchemaFormat(
        json_schema=NamedSchema(schema=schema.schema, name=schema.name, description=schema.description)
    )


def _refuse(param: str, reason: str) -> None:
    raise RequestError(f"`{param}` is not supported: {reason}", param=param, code="unsupported_parameter")
