"""A chat: its messages, its tools, and how the model responds.

It is the body of `/v1/chat/completions`. Other APIs turn their requests into it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from fllm.requests.generation import GenerationRequest, MaxTokens, TopLogprobs


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


class NamedToolChoice(Struct, frozen=True, tag="function"):
    """A ``tool_choice`` that forces a call of one named function."""

    function: NamedFunction


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


class AllowedTool(Struct, frozen=True):
    """A function that ``allowed_tools`` names."""

    function: NamedFunction
    type: Literal["function"] = "function"


class AllowedTools(Struct, frozen=True):
    """The tools that may be called, and whether one must be."""

    tools: Annotated[list[AllowedTool], Meta(min_length=1)]
    mode: Literal["auto", "required"] = "auto"


class AllowedToolChoice(Struct, frozen=True, tag="allowed_tools"):
    """A ``tool_choice`` that allows some of the tools. The prompt has all of them."""

    allowed_tools: AllowedTools


class Prediction(Struct, frozen=True):
    """Text that the response probably repeats."""

    content: str | list[ContentPart]
    type: Literal["content"] = "content"


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
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | AllowedToolChoice | None = None
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
    prediction: Prediction | None = None
    """Ignored: it would only change the speed."""
    service_tier: str | None = None
    store: bool | None = None
    """Ignored: the server has no routes that would return the stored response."""
    verbosity: str | None = None
    web_search_options: Any = None
