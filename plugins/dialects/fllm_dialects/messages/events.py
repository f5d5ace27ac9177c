"""The response of `/v1/messages`, and the events of its stream, in Anthropic's format."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "model_context_window_exceeded"
]


class OutputTokensDetails(Struct, frozen=True):
    """Breakdown of the generated tokens."""

    thinking_tokens: int


class MessageUsage(Struct, frozen=True, kw_only=True):
    """Token counts. The prompt has the sum of the three input counts."""

    input_tokens: int
    """Prompt tokens that were computed."""
    cache_creation_input_tokens: int = 0
    """0: every prompt enters the prefix cache, which needs no marks and has no tokens of its own."""
    cache_read_input_tokens: int
    """Prompt tokens found in the prefix cache."""
    output_tokens: int
    output_tokens_details: OutputTokensDetails


class TextContent(Struct, frozen=True):
    """Generated text."""

    text: str
    type: Literal["text"] = "text"


class ThinkingContent(Struct, frozen=True):
    """Generated reasoning."""

    thinking: str
    signature: str
    """Not a signature: this server accepts any reasoning that comes back, and verifies nothing."""
    type: Literal["thinking"] = "thinking"


class ToolUseContent(Struct, frozen=True):
    """A generated tool call."""

    id: str
    name: str
    input: Any
    """A JSON object."""
    type: Literal["tool_use"] = "tool_use"


Content = TextContent | ThinkingContent | ToolUseContent


class ContextManagement(Struct, frozen=True):
    """The edits of the conversation that were applied: none."""

    applied_edits: list[Any] = []


class Message(Struct, frozen=True, kw_only=True):
    """A response."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[Any]
    """Blocks of the types ``thinking``, ``text`` and ``tool_use``."""
    stop_reason: StopReason | None
    stop_sequence: str | None
    """The stop sequence that ended the output."""
    usage: MessageUsage
    context_management: ContextManagement | UnsetType = UNSET
    """With ``context_management`` in the request."""


class TextDelta(Struct, frozen=True):
    """A piece of text."""

    text: str
    type: Literal["text_delta"] = "text_delta"


class ThinkingDelta(Struct, frozen=True):
    """A piece of reasoning."""

    thinking: str
    type: Literal["thinking_delta"] = "thinking_delta"


class SignatureDelta(Struct, frozen=True):
    """What ends a block of reasoning."""

    signature: str
    type: Literal["signature_delta"] = "signature_delta"


class InputJsonDelta(Struct, frozen=True):
    """A piece of the JSON text of a call's input."""

    partial_json: str
    type: Literal["input_json_delta"] = "input_json_delta"


BlockDelta = TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class MessageStart(Struct, frozen=True):
    """The first event."""

    message: Message
    type: Literal["message_start"] = "message_start"


class BlockStart(Struct, frozen=True):
    """Start of a block. Blocks follow one another, numbered from 0."""

    index: int
    content_block: Content
    type: Literal["content_block_start"] = "content_block_start"


class BlockDeltaEvent(Struct, frozen=True):
    """More of a block."""

    index: int
    delta: BlockDelta
    type: Literal["content_block_delta"] = "content_block_delta"


class BlockStop(Struct, frozen=True):
    """End of a block."""

    index: int
    type: Literal["content_block_stop"] = "content_block_stop"


class StopDelta(Struct, frozen=True):
    """Why the output ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Struct, frozen=True, kw_only=True):
    """The end of the output, with the usage of the whole request."""

    delta: StopDelta
    usage: MessageUsage
    context_management: ContextManagement | UnsetType = UNSET
    type: Literal["message_delta"] = "message_delta"


class MessageStop(Struct, frozen=True):
    """The last event."""

    type: Literal["message_stop"] = "message_stop"


class ErrorDetails(Struct, frozen=True):
    """What a program needs to know of an error."""

    error_code: str


class ErrorBody(Struct, frozen=True):
    """What went wrong."""

    type: str
    message: str
    details: ErrorDetails | UnsetType = UNSET


class ErrorResponse(Struct, frozen=True):
    """Body of every error response, and the event that ends a stream which fails."""

    error: ErrorBody
    request_id: str | UnsetType = UNSET
    """Absent in a stream."""
    type: Literal["error"] = "error"


StreamEvent = (
    MessageStart | BlockStart | BlockDeltaEvent | BlockStop | MessageDelta | MessageStop | ErrorResponse
)


class TokenCount(Struct, frozen=True):
    """Response of `/v1/messages/count_tokens`."""

    input_tokens: int
