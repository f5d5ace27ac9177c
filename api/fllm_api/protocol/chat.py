"""Request, response and stream chunk of `/v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from fllm_api.protocol.generation import GenerationRequest, MaxTokens, TopLogprobs
from fllm_api.protocol.token_details import PromptLogprobs
from fllm_api.protocol.usage import CompletionUsage


class ImageUrl(Struct, frozen=True):
    """An image: a data URL with its file in base64, or the address of a server that is allowed."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None
    """Ignored: the model's own processor decides about the resolution."""


class ContentPart(Struct, frozen=True, omit_defaults=True):
    """A part of a message's content: ``text``, ``refusal`` or ``image_url``."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | str | None = None


class FunctionCall(Struct, frozen=True):
    """Function name of an earlier call, and its arguments as JSON text."""

    name: str
    arguments: Any = None


class ToolCall(Struct, frozen=True):
    """A tool call in the history of a chat."""

    function: FunctionCall
    id: str | None = None
    type: Literal["function"] | None = "function"


class ChatMessage(Struct, frozen=True, kw_only=True):
    """One message of the conversation so far."""

    role: Annotated[str, Meta(min_length=1, max_length=64)]
    """One of OpenAI's roles, or one that the chat template names."""
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    function_call: FunctionCall | None = None
    """OpenAI's older form of a tool call."""
    reasoning: str | None = None
    """vLLM's and OpenRouter's name of ``reasoning_content``."""
    thinking: str | None = None
    """Ollama's name of ``reasoning_content``."""
    tool_name: str | None = None
    """Ollama's name of ``name``."""


class FunctionDefinition(Struct, frozen=True):
    """A function that the model may call."""

    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments."""
    strict: bool | None = None
    """If true, the arguments of a call match the schema even with ``tool_choice`` "auto"."""


class ChatTool(Struct, frozen=True):
    """A tool. Only functions are supported."""

    function: FunctionDefinition
    type: Literal["function"] = "function"


class NamedFunction(Struct, frozen=True):
    """Name of the function to call."""

    name: str


class NamedToolChoice(Struct, frozen=True):
    """A ``tool_choice`` that forces a call of one named function."""

    function: NamedFunction
    type: Literal["function"] = "function"


class ReasoningOptions(Struct, frozen=True, kw_only=True):
    """OpenRouter's options for reasoning."""

    effort: str | None = None
    max_tokens: MaxTokens | None = None
    """Maximum number of reasoning tokens."""
    enabled: bool | None = None
    exclude: bool | None = None
    """Leave the reasoning out of the response."""


class ThinkingOptions(Struct, frozen=True, kw_only=True):
    """Options for reasoning in the form of the APIs of Anthropic, DeepSeek and Z.ai."""

    type: str = ""
    """"enabled" or "disabled"; others have no effect."""
    budget_tokens: MaxTokens | None = None
    """Maximum number of reasoning tokens."""


class ChatRequest(GenerationRequest, frozen=True, kw_only=True):
    """Body of a chat completion request."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_tokens: MaxTokens | None = None
    """OpenAI's older name of ``max_completion_tokens``, which takes precedence."""
    max_completion_tokens: MaxTokens | None = None
    """Without a maximum, the output may fill the rest of the context."""
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: list[ChatTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    """If false, the response has at most one call."""

    add_generation_prompt: bool | None = None
    """End the prompt with the assistant header. Default: the opposite of ``continue_final_message``."""
    continue_final_message: bool | None = None
    """Continue the last message instead of starting a new one. Default: if the assistant's."""
    echo: bool | None = None
    """With ``continue_final_message``, start the output with the continued message."""
    documents: list[dict[str, Any]] | None = None
    """Documents for the chat template."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Extra variables for the chat template, such as ``enable_thinking``."""
    reasoning_effort: str | None = None
    """"none" turns reasoning off, others turn it on, if the chat template has a switch."""
    reasoning: ReasoningOptions | None = None
    thinking: ThinkingOptions | bool | None = None
    enable_thinking: bool | None = None
    """The template's switch. `chat_template_kwargs` takes precedence."""
    thinking_token_budget: MaxTokens | None = None
    """Maximum number of reasoning tokens, as in vLLM. -1 means no maximum."""
    thinking_budget: MaxTokens | None = None
    """Alibaba's name of ``thinking_token_budget``."""
    include_reasoning: bool | None = None
    """If false, the response has no reasoning."""

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
    """Function name of a generated call, and its arguments as JSON text."""

    name: str
    arguments: str


class ResponseToolCall(Struct, frozen=True):
    """A tool call that the model generated."""

    id: str
    function: ResponseFunctionCall
    type: Literal["function"] = "function"


class ResponseMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The generated message. Keys without a value are absent, except ``content``."""

    role: str
    content: str | None
    reasoning_content: str | None = None
    """The reasoning. ``--reasoning-field`` selects this field, `reasoning`, or both."""
    reasoning: str | None = None
    tool_calls: list[ResponseToolCall] | None = None


class TopLogprob(Struct, frozen=True):
    """An alternative token at one position."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobs(Struct, frozen=True):
    """A generated token, and the most likely tokens at its position."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct, frozen=True):
    """Log-probabilities of a choice, one entry per token."""

    content: list[TokenLogprobs]


class ChatChoice(Struct, frozen=True, kw_only=True):
    """One choice of a chat completion."""

    index: int
    message: ResponseMessage
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | None
    token_ids: list[int] | UnsetType = UNSET
    """With ``return_token_ids``."""


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """Response to a chat request that is not streamed."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """Unix time in seconds."""
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    prompt_token_ids: list[int] | UnsetType = UNSET
    """With ``return_token_ids``."""
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET
    """With ``prompt_logprobs``."""


class FunctionDelta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of a function call: first its ``name``, then pieces of its arguments."""

    name: str | None = None
    arguments: str


class ToolCallDelta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The start of a call (``id``, ``type`` and function name), or a piece of its arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """New content of a message. Keys without a value are absent."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(Struct, frozen=True, kw_only=True):
    """New content of one choice. ``stop_reason`` is present only in the last chunk of the choice."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | UnsetType | None = UNSET
    token_ids: list[int] | UnsetType = UNSET
    """With ``return_token_ids``: the tokens since the previous chunk of the choice."""


class ChatCompletionChunk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a chat stream. ``usage`` is present only if ``stream_options`` requests it."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    prompt_token_ids: list[int] | UnsetType = UNSET
    """In the first chunk, with ``return_token_ids``."""
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET
    """In the first chunk, with ``prompt_logprobs``."""
