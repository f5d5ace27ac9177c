"""`/v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from fllm_api.protocol.generation import GenerationRequest, PositiveCount, TopLogprobs
from fllm_api.protocol.usage import CompletionUsage


class ContentPart(Struct, frozen=True, omit_defaults=True):
    """A part of a message's content; only text parts can be served."""

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Struct, frozen=True):
    """The function of an earlier call, and its arguments as JSON text."""

    name: str
    arguments: str | None = None


class ToolCall(Struct, frozen=True):
    """A call in the history of a chat."""

    function: FunctionCall
    id: str | None = None
    type: Literal["function"] = "function"


class ChatMessage(Struct, frozen=True, kw_only=True):
    """One message of the chat so far."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


class FunctionDefinition(Struct, frozen=True):
    """A function that the model may call."""

    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON Schema of the arguments."""
    strict: bool | None = None
    """True: with ``tool_choice`` "auto" too, the arguments of a call obey the schema."""


class ChatTool(Struct, frozen=True):
    """A tool: so far always a function."""

    function: FunctionDefinition
    type: Literal["function"] = "function"


class NamedFunction(Struct, frozen=True):
    """Which function is meant."""

    name: str


class NamedToolChoice(Struct, frozen=True):
    """This very tool is to be called."""

    function: NamedFunction
    type: Literal["function"] = "function"


class ChatRequest(GenerationRequest, frozen=True, kw_only=True):
    """What the model is to answer, and how."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_tokens: PositiveCount | None = None
    """OpenAI's older name of ``max_completion_tokens``, which wins over it."""
    max_completion_tokens: PositiveCount | None = None
    """Without any maximum, the answer may fill the context."""
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: list[ChatTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    """False: one call at most."""

    add_generation_prompt: bool | None = None
    """True unless said otherwise: the prompt ends where the answer is to begin."""
    continue_final_message: bool | None = None
    """The answer goes on where the last message ends."""
    echo: bool | None = None
    """With ``continue_final_message``: the answer repeats the message that it continues."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Further variables for the model's chat template, such as ``enable_thinking``."""
    reasoning_effort: str | None = None
    """Handed to the chat template."""

    audio: Any = None
    chat_template: Any = None
    function_call: Any = None
    functions: Any = None
    modalities: list[str] | None = None
    prediction: Any = None
    service_tier: str | None = None
    store: bool | None = None
    verbosity: str | None = None
    web_search_options: Any = None


class ResponseFunctionCall(Struct, frozen=True):
    """The function that the model calls, and its arguments as JSON text."""

    name: str
    arguments: str


class ResponseToolCall(Struct, frozen=True):
    """A call that the model made."""

    id: str
    function: ResponseFunctionCall
    type: Literal["function"] = "function"


class ResponseMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the model said; keys without a value are absent, but for ``content``."""

    role: str
    content: str | None
    reasoning_content: str | None = None
    tool_calls: list[ResponseToolCall] | None = None


class TopLogprob(Struct, frozen=True):
    """A token that could have stood here."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobs(Struct, frozen=True):
    """A token of the answer, and the likeliest ones at its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct, frozen=True):
    """One entry for each token."""

    content: list[TokenLogprobs]


class ChatChoice(Struct, frozen=True, kw_only=True):
    """One answer."""

    index: int
    message: ResponseMessage
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """The whole answer to a chat request."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """Unix time in seconds."""
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage


class FunctionDelta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``name`` comes first, then pieces of the arguments."""

    name: str | None = None
    arguments: str


class ToolCallDelta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call's beginning (with ``id``, ``type`` and name), or a piece of its arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is new in a message; keys without a value are absent."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(Struct, frozen=True, kw_only=True):
    """What is new in one answer; ``stop_reason`` comes with its end."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | UnsetType | None = UNSET


class ChatCompletionChunk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a stream; ``usage`` is there only where it was asked for."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
