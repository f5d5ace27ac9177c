"""Request bodies of `/v1/messages` and `/v1/messages/count_tokens`, in Anthropic's format.

Fields that have no effect here are left out, for unknown fields are ignored: ``cache_control``, ``metadata``,
``service_tier``, ``inference_geo``, ``speed``, ``diagnostics``, ``fallbacks``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

NonEmptyText = Annotated[str, Meta(min_length=1)]
MAX_INT = 2**31 - 1
Count = Annotated[int, Meta(ge=0, le=MAX_INT)]
StopSequence = Annotated[str, Meta(min_length=1, max_length=1024)]
MAX_STOP_SEQUENCES = 64


class Base64Source(Struct, frozen=True, tag_field="type", tag="base64"):
    """A file in base64."""

    data: str
    media_type: str


class UrlSource(Struct, frozen=True, tag_field="type", tag="url"):
    """The address of a file."""

    url: str


class FileSource(Struct, frozen=True, tag_field="type", tag="file"):
    """A file of Anthropic's Files API, which this server does not have."""

    file_id: str


class TextSource(Struct, frozen=True, tag_field="type", tag="text"):
    """The text of a document."""

    data: str


class TextBlock(Struct, frozen=True, tag_field="type", tag="text"):
    """Text."""

    text: str


class PlainText(Struct, frozen=True):
    """Text where no other block is possible."""

    text: str
    type: Literal["text"] = "text"


class ImageBlock(Struct, frozen=True, tag_field="type", tag="image"):
    """An image."""

    source: Base64Source | UrlSource | FileSource


class ContentSource(Struct, frozen=True, tag_field="type", tag="content"):
    """The content of a document, as blocks."""

    content: str | list[TextBlock | ImageBlock]


class CitationsOption(Struct, frozen=True):
    """Whether the response is to cite a document, which this server's responses never do."""

    enabled: bool | None = None


class DocumentBlock(Struct, frozen=True, tag_field="type", tag="document"):
    """A document: only text, and images within its blocks."""

    source: TextSource | ContentSource | Base64Source | UrlSource | FileSource
    title: str | None = None
    context: str | None = None
    """What the user says about the document."""
    citations: CitationsOption | None = None


class SearchResultBlock(Struct, frozen=True, tag_field="type", tag="search_result"):
    """A passage that the client found."""

    content: list[PlainText]
    source: str
    title: str
    citations: CitationsOption | None = None


class ToolReferenceBlock(Struct, frozen=True, tag_field="type", tag="tool_reference"):
    """The name of a tool that the client's own search for tools found."""

    tool_name: str


class ThinkingBlock(Struct, frozen=True, tag_field="type", tag="thinking"):
    """Reasoning of an earlier response."""

    thinking: str
    signature: str | None = None
    """Ignored: whatever it is, it is accepted."""


class RedactedThinkingBlock(Struct, frozen=True, tag_field="type", tag="redacted_thinking"):
    """Encrypted reasoning of Anthropic's models, which no other server can read: it is left out."""

    data: str = ""


class ToolUseBlock(Struct, frozen=True, tag_field="type", tag="tool_use"):
    """A tool call of an earlier response."""

    id: str
    name: NonEmptyText
    input: dict[str, Any]


ResultBlock = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolReferenceBlock


class ToolResultBlock(Struct, frozen=True, tag_field="type", tag="tool_result"):
    """The result of a tool call."""

    tool_use_id: str
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None


ContentBlock = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
)


class InputMessage(Struct, frozen=True):
    """A message of the conversation so far."""

    role: Literal["user", "assistant", "system"]
    content: str | list[ContentBlock]


class ToolParam(Struct, frozen=True, kw_only=True):
    """A tool that the client runs. Those that Anthropic runs or defines have a ``type`` and no schema."""

    name: NonEmptyText | None = None
    type: str | None = None
    """``custom``, or absent."""
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    """JSON Schema of the input."""
    strict: bool | None = None
    """If true, the input of a call always matches the schema."""


class ToolChoice(Struct, frozen=True, kw_only=True):
    """Whether the model may call tools (``auto``, ``none``), or must (``any``, ``tool``)."""

    type: Literal["auto", "any", "tool", "none"]
    name: NonEmptyText | None = None
    """The tool to call, with ``tool``."""
    disable_parallel_tool_use: bool | None = None
    """If true, the response has at most one call."""


class ThinkingConfig(Struct, frozen=True, kw_only=True):
    """Whether the model reasons before it answers."""

    type: Literal["enabled", "adaptive", "between_tools", "disabled"]
    budget_tokens: Annotated[int, Meta(ge=1, le=MAX_INT)] | None = None
    """Maximum number of reasoning tokens, with ``enabled``."""
    display: str | None = None
    """With ``omitted``, the response has no reasoning."""


class OutputFormat(Struct, frozen=True, kw_only=True):
    """A JSON Schema that the text of the response must match."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct, frozen=True, kw_only=True):
    """Options of the output."""

    effort: str | None = None
    """``low``, ``medium``, ``high``, ``xhigh`` or ``max``: how much the model reasons, if it has levels."""
    format: OutputFormat | None = None


class CountTokensRequest(Struct, frozen=True, kw_only=True):
    """Body of `/v1/messages/count_tokens`: the fields that a prompt depends on."""

    messages: Annotated[list[InputMessage], Meta(min_length=1)]
    model: str | None = None
    """Name of the model or of an adapter. If the server has one model, any string is accepted."""
    system: str | list[PlainText] | None = None
    tools: list[ToolParam] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """The older place of ``output_config.format``."""
    context_management: dict[str, Any] | None = None
    """Accepted without effect: the response says that no edits were applied."""
    mcp_servers: list[Any] | None = None
    container: Any = None
    thread: Any = None
    compaction: Any = None


class MessagesRequest(CountTokensRequest, frozen=True, kw_only=True):
    """Body of `/v1/messages`."""

    max_tokens: Count
    """Maximum number of output tokens. The rest of the context is a maximum in any case.

    With 0, the prompt is computed for the prefix cache, and the response is empty.
    """
    stream: bool | None = None
    stop_sequences: Annotated[list[StopSequence], Meta(max_length=MAX_STOP_SEQUENCES)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    """0 keeps the most likely token only."""
    top_k: Count | None = None
    """Number of most likely tokens to sample from. 0 means all."""
