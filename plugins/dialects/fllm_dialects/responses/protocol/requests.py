"""Bodies of `POST /v1/responses` and `POST /v1/responses/input_tokens`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from fllm import JsonObjectFormat, TextFormat
from fllm_dialects.responses.protocol.items import InputItem
from fllm_dialects.responses.protocol.tools import ToolChoice, ToolParam

Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
"""Up to 16 pairs of texts that the response repeats; OpenAI's limits."""
Label: TypeAlias = Annotated[str, Meta(max_length=1024)]


class SchemaFormat(Struct, frozen=True, kw_only=True, tag="json_schema"):
    """A ``text.format`` that requires JSON matching a schema."""

    name: str
    schema: dict[str, Any] | bool
    description: str | None = None
    strict: bool | None = None
    """Ignored: the output always matches the schema."""


class TextOptions(Struct, frozen=True, kw_only=True):
    """What the text of the response looks like."""

    format: TextFormat | JsonObjectFormat | SchemaFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    """Has no effect, so the response says ``medium``. OpenAI's Agents SDK sends ``low`` by default."""


class ReasoningParam(Struct, frozen=True, kw_only=True):
    """How the model reasons."""

    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    """Has no effect, so the response says null: nothing writes summaries. Many agents request one."""
    generate_summary: Literal["auto", "concise", "detailed"] | UnsetType | None = UNSET
    """OpenAI's older name of ``summary``."""


class ResponseStreamOptions(Struct, frozen=True, kw_only=True):
    """Options of a stream."""

    include_obfuscation: bool | None = None
    """Add random characters to events. The server adds none, so only false is accepted."""


class ConversationRef(Struct, frozen=True):
    """The conversation that a response belongs to."""

    id: str


class InputTokensRequest(Struct, frozen=True, kw_only=True):
    """The fields of a request that its prompt consists of."""

    model: str | None = None
    """Name of the model or of an adapter. If the server has one model, any string is accepted."""
    input: str | list[InputItem] | None = None
    instructions: str | None = None
    """The system message. That of a previous response is not used."""
    previous_response_id: str | None = None
    conversation: str | ConversationRef | None = None
    tools: list[ToolParam] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    """If false, the response has at most one call."""
    reasoning: ReasoningParam | None = None
    text: TextOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    """"auto": leave out the oldest items of a conversation that is too long."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Extra variables for the chat template, such as ``enable_thinking``."""


class ResponsesRequest(InputTokensRequest, frozen=True, kw_only=True):
    """Body of a request for a response."""

    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    store: bool | None = None
    background: bool | None = None
    include: list[str] | None = None

    max_output_tokens: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    """Maximum number of tokens, with those of the reasoning."""
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    """Maximum number of calls of hosted tools. The server has none, so this has no effect."""
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None

    metadata: Metadata | None = None
    prompt_cache_key: Label | None = None
    """Repeated in the response. The prefix cache needs no key."""
    safety_identifier: Label | None = None
    user: Label | None = None
    service_tier: str | None = None

    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    priority: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None

    prompt: Any = None
    context_management: Any = None
