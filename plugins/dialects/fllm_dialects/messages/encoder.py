"""Encoder of `/v1/messages`: pipeline outputs to events, events to the whole message."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from fllm import (
    ErrorInfo,
    Event,
    Finished,
    Reasoning,
    ResponseEncoder,
    SequenceOutput,
    Text,
    ToolArguments,
    ToolStart,
    Usage,
)
from fllm.parsing.json_objects import complete_object, is_json
from fllm_dialects.messages.errors import error_event
from fllm_dialects.messages.events import (
    BlockDelta,
    BlockDeltaEvent,
    BlockStart,
    BlockStop,
    Content,
    ContextManagement,
    InputJsonDelta,
    Message,
    MessageDelta,
    MessageStart,
    MessageStop,
    MessageUsage,
    OutputTokensDetails,
    SignatureDelta,
    StopDelta,
    StreamEvent,
    TextContent,
    TextDelta,
    ThinkingContent,
    ThinkingDelta,
    ToolUseContent,
)
from fllm_dialects.messages.ids import tool_use_id

SIGNATURE = "dW5zaWduZWQ="
"""What stands for the signature of reasoning: "unsigned" in base64. Clients drop a block without one."""


class MessageHeader(Struct, frozen=True, kw_only=True):
    """What a message says about its request."""

    id: str
    model: str
    prompt_tokens: int
    max_tokens: int
    """The maximum of the request. With 0, the message is empty."""
    context_management: bool = False
    """Whether the request asks for edits of the conversation."""


class MessageEncoder(ResponseEncoder[StreamEvent]):
    """Encodes one output as blocks that follow one another: reasoning, text, and one for each call."""

    def __init__(self, header: MessageHeader) -> None:
        self._header = header
        self._started = False
        self._blocks = 0
        """Number of blocks that have begun."""
        self._open: type[Content] | None = None
        """Kind of the block that has not ended."""
        self._calls: dict[int, int] = {}
        """The block of each call."""

    def feed(self, output: SequenceOutput) -> list[StreamEvent]:
        """Return the events for an output. The first one has what was found in the prefix cache."""
        events: list[StreamEvent] = []
        if not self._started:
            self._started = True
            events.append(MessageStart(self._message(output.usage)))
        for event in output.events:
            events += self._encode(event)
        return events

    def finish(self) -> list[StreamEvent]:
        """Return the last event."""
        return [MessageStop()]

    def error(self, error: ErrorInfo) -> list[StreamEvent]:
        """Return the event that ends a stream which fails."""
        return [error_event(error)]

    def fold(self, chunks: Sequence[StreamEvent]) -> Message:
        """Merge the events into the whole message."""
        blocks: list[Content] = []
        pieces: defaultdict[int, list[str]] = defaultdict(list)
        start = end = None
        for chunk in chunks:
            match chunk:
                case MessageStart():
                    start = chunk.message
                case BlockStart():
                    blocks.append(chunk.content_block)
                case BlockDeltaEvent(delta=delta):
                    pieces[chunk.index].append(_text_of(delta))
                case MessageDelta():
                    end = chunk
        assert start is not None
        assert end is not None, "the last event of an output is Finished"
        return replace(
            start,
            content=[_whole(block, "".join(pieces[i])) for i, block in enumerate(blocks)],
            stop_reason=end.delta.stop_reason,
            stop_sequence=end.delta.stop_sequence,
            usage=end.usage,
            context_management=end.context_management,
        )

    def _message(self, usage: Usage) -> Message:
        return Message(
            id=self._header.id,
            model=self._header.model,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=self._usage(usage),
        )

    def _usage(self, usage: Usage) -> MessageUsage:
        is_empty = self._header.max_tokens == 0
        return MessageUsage(
            input_tokens=self._header.prompt_tokens - usage.cached_tokens,
            cache_read_input_tokens=usage.cached_tokens,
            output_tokens=0 if is_empty else usage.completion_tokens,
            output_tokens_details=OutputTokensDetails(0 if is_empty else usage.reasoning_tokens),
        )

    def _encode(self, event: Event) -> Iterator[StreamEvent]:
        if isinstance(event, Finished):
            yield from self._stop()
            yield self._delta(event)
            return
        if self._header.max_tokens == 0:
            return
        match event:
            case Text(text):
                if self._open is not TextContent:
                    yield from self._start(TextContent(""))
                yield BlockDeltaEvent(self._blocks - 1, TextDelta(text))
            case Reasoning(text):
                if self._open is not ThinkingContent:
                    yield from self._start(ThinkingContent("", ""))
                yield BlockDeltaEvent(self._blocks - 1, ThinkingDelta(text))
            case ToolStart():
                self._calls[event.index] = self._blocks
                yield from self._start(ToolUseContent(tool_use_id(event.id or ""), event.name, {}))
            case ToolArguments():
                yield BlockDeltaEvent(self._calls[event.index], InputJsonDelta(event.text))

    def _start(self, block: Content) -> Iterator[StreamEvent]:
        yield from self._stop()
        yield BlockStart(self._blocks, block)
        self._open = type(block)
        self._blocks += 1

    def _stop(self) -> Iterator[StreamEvent]:
        """Return the end of the open block."""
        if self._open is None:
            return
        if self._open is ThinkingContent:
            yield BlockDeltaEvent(self._blocks - 1, SignatureDelta(SIGNATURE))
        yield BlockStop(self._blocks - 1)
        self._open = None

    def _delta(self, finished: Finished) -> MessageDelta:
        return MessageDelta(
            delta=self._stop_delta(finished),
            usage=self._usage(finished.usage),
            context_management=ContextManagement() if self._header.context_management else UNSET,
        )

    def _stop_delta(self, finished: Finished) -> StopDelta:
        if self._header.max_tokens == 0:
            return StopDelta("max_tokens", None)
        by = finished.stop_reason
        match finished.reason:
            case "tool_calls" | "stop" if isinstance(by, str):  # the input of a call may be cut off
                return StopDelta("stop_sequence", by)
            case "tool_calls":
                return StopDelta("tool_use", None)
            case "length":
                is_full = finished.usage.completion_tokens < self._header.max_tokens
                return StopDelta("model_context_window_exceeded" if is_full else "max_tokens", None)
            case "abort":
                return StopDelta("pause_turn", None)
            case "stop":
                return StopDelta("end_turn", None)


def _text_of(delta: BlockDelta) -> str:
    match delta:
        case TextDelta(text) | ThinkingDelta(text) | InputJsonDelta(text):
            return text
        case SignatureDelta():
            return ""


def _whole(block: Content, text: str) -> Content:
    match block:
        case TextContent():
            return TextContent(text)
        case ThinkingContent():
            return ThinkingContent(text, SIGNATURE)
        case ToolUseContent():
            return replace(block, input=_input(text))


def _input(arguments: str) -> Any:
    """Return the arguments of a call as a JSON object, completed if they are cut off."""
    text = complete_object(arguments.strip() or "{}")
    return msgspec.Raw(text.encode()) if text is not None and is_json(text) else {"arguments": arguments}
