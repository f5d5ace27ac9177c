"""Responses of `/v2/chat`, and the events of a stream. The tag of an event is also its name."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

FinishReason = Literal["COMPLETE", "MAX_TOKENS", "STOP_SEQUENCE", "TOOL_CALL", "ERROR"]


class Content(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a message, or a piece of one."""

    type: Literal["text", "thinking"] | None = None
    text: str | None = None
    thinking: str | None = None


class Function(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The function of a call, or a piece of its arguments."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call, or a piece of one."""

    id: str | None = None
    type: Literal["function"] | None = None
    function: Function


class MessageDelta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an event adds to the message."""

    role: Literal["assistant"] | None = None
    content: Content | None = None
    tool_calls: ToolCall | None = None


class Delta(Struct, frozen=True):
    """What an event adds."""

    message: MessageDelta


class Tokens(Struct, frozen=True):
    """Numbers of tokens."""

    input_tokens: int = 0
    output_tokens: int = 0


class Usage(Struct, frozen=True):
    """The same numbers, under both of Cohere's names."""

    billed_units: Tokens = Tokens()
    tokens: Tokens = Tokens()


class End(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a message ended."""

    finish_reason: FinishReason
    usage: Usage | None = None
    error: str | None = None


class MessageStart(Struct, frozen=True, tag_field="type", tag="message-start"):
    """First event."""

    id: str
    delta: Delta


class ContentStart(Struct, frozen=True, tag_field="type", tag="content-start"):
    """A text or the reasoning begins."""

    index: int
    delta: Delta


class ContentDelta(Struct, frozen=True, tag_field="type", tag="content-delta"):
    """A piece of it."""

    index: int
    delta: Delta


class ContentEnd(Struct, frozen=True, tag_field="type", tag="content-end"):
    """It ends."""

    index: int


class ToolCallStart(Struct, frozen=True, tag_field="type", tag="tool-call-start"):
    """A call begins."""

    index: int
    delta: Delta


class ToolCallDelta(Struct, frozen=True, tag_field="type", tag="tool-call-delta"):
    """A piece of its arguments."""

    index: int
    delta: Delta


class ToolCallEnd(Struct, frozen=True, tag_field="type", tag="tool-call-end"):
    """It ends."""

    index: int


class MessageEnd(Struct, frozen=True, tag_field="type", tag="message-end"):
    """Last event."""

    delta: End


StreamEvent = (
    MessageStart
    | ContentStart
    | ContentDelta
    | ContentEnd
    | ToolCallStart
    | ToolCallDelta
    | ToolCallEnd
    | MessageEnd
)


class CohereMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The message of a whole response."""

    role: Literal["assistant"]
    content: list[Content] = []
    tool_calls: list[ToolCall] = []


class CohereResponse(Struct, frozen=True, kw_only=True):
    """A whole response."""

    id: str
    finish_reason: FinishReason
    message: CohereMessage
    usage: Usage


class CohereError(Struct, frozen=True, kw_only=True):
    """The body of an error."""

    id: str
    message: str
