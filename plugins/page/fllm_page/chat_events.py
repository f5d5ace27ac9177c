"""The request of `POST /page/chat`, and the events of its stream."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from fllm import ChatRequest, ErrorInfo, Usage

MIN_LOGPROB = -9999.0
"""Lowest log-probability that is reported, because JSON has no infinity."""


class PageChatRequest(ChatRequest, frozen=True, kw_only=True):
    """A chat request, whose response is always streamed."""

    inspect: bool = False
    """Whether the stream shows how the text came about: `Prompt`, `TokenEvent` and `Raw`."""


class ShownToken(Struct, frozen=True):
    """A token and its text, with an escape for each byte of an incomplete character."""

    id: int
    text: str


class Alternative(Struct, frozen=True):
    """A token that was likely."""

    id: int
    text: str
    logprob: float


class ChatEvent(Struct, frozen=True, tag_field="event"):
    """Base class of the events. The field ``event`` has the name that the event has in the stream."""


class Prompt(ChatEvent, frozen=True, kw_only=True, tag="prompt"):
    """The prompt, and who reads the output."""

    text: str
    tokens: list[ShownToken]
    model: str
    reasoning_parser: str | None
    tool_call_parser: str | None
    template: Literal["model", "request"]
    """Where the chat template came from."""


class TokenEvent(ChatEvent, frozen=True, kw_only=True, tag="token"):
    """A generated token."""

    index: int
    """Index of the choice, as in the other events."""
    id: int
    text: str
    logprob: float | None
    """``None`` if the engine did not report it."""
    top: list[Alternative]
    allowed: int | None
    """Number of tokens that the grammar allowed here; ``None``: there is no grammar, or it is not known."""
    forced: bool
    """Whether it was the only one."""


class Raw(ChatEvent, frozen=True, tag="raw"):
    """Text that the parsers received."""

    index: int
    text: str


class ParsedEvent(ChatEvent, frozen=True, kw_only=True, tag="event", omit_defaults=True):
    """What a parser made of the text."""

    index: int
    type: Literal["text", "reasoning", "tool_start", "tool_arguments"]
    parser: str | None
    """Name of the parser; ``None``: the text has none."""
    text: str | None = None
    """A piece of text, of reasoning, or of the JSON text of a call's arguments."""
    call: int | None = None
    """Index of the call."""
    name: str | None = None
    """Name of the function that is called."""
    id: str | None = None
    """Id of the call."""


class Finish(ChatEvent, frozen=True, tag="finish"):
    """The end of a choice."""

    index: int
    reason: str
    stop_reason: int | str | None


class Timings(Struct, frozen=True, kw_only=True):
    """Seconds of the request."""

    queue: float
    prefill: float
    decode: float
    total: float


class Done(ChatEvent, frozen=True, kw_only=True, tag="done"):
    """The end of the response."""

    usage: Usage
    timings: Timings
    request_id: str


class ErrorEvent(ChatEvent, frozen=True, tag="error"):
    """An error, in OpenAI's envelope."""

    error: ErrorInfo
