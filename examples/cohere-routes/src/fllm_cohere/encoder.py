"""Turn what the model generates into the events of a stream, and events into a whole response."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

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
)
from fllm_cohere.responses import (
    CohereMessage,
    CohereResponse,
    Content,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Delta,
    End,
    FinishReason,
    Function,
    MessageDelta,
    MessageEnd,
    MessageStart,
    StreamEvent,
    Tokens,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)

Part = Literal["text", "thinking", "call"]


class CohereEncoder(ResponseEncoder[StreamEvent]):
    """Encodes one message: its parts follow each other, and each one begins and ends with an event."""

    def __init__(self, response_id: str) -> None:
        self._id = response_id
        self._open: Part | None = None
        self._index = -1
        """Number of the part that is open, or was the last one."""

    def start(self) -> list[StreamEvent]:
        """Return the event before the first output."""
        return [MessageStart(self._id, Delta(MessageDelta(role="assistant")))]

    def feed(self, output: SequenceOutput) -> list[StreamEvent]:
        """Return the events of an output."""
        return [chunk for event in output.events for chunk in self._encode(event)]

    def fold(self, chunks: Sequence[StreamEvent]) -> CohereResponse:
        """Return the whole response."""
        [end] = [chunk.delta for chunk in chunks if isinstance(chunk, MessageEnd)]
        return CohereResponse(
            id=self._id,
            finish_reason=end.finish_reason,
            message=CohereMessage(
                role="assistant",
                content=[_fold_content(chunks, each) for each in chunks if isinstance(each, ContentStart)],
                tool_calls=[_fold_call(chunks, each) for each in chunks if isinstance(each, ToolCallStart)],
            ),
            usage=end.usage or Usage(),
        )

    def error(self, error: ErrorInfo) -> list[StreamEvent]:
        """Return the last event of a stream that fails after it has begun."""
        return [MessageEnd(End(finish_reason="ERROR", error=error.message))]

    def _encode(self, event: Event) -> Iterator[StreamEvent]:
        match event:
            case Text(text=text):
                yield from self._begin("text")
                yield ContentDelta(self._index, _content(Content(text=text)))
            case Reasoning(text=text):
                yield from self._begin("thinking")
                yield ContentDelta(self._index, _content(Content(thinking=text)))
            case ToolStart(name=name, id=call_id):
                yield from self._end()
                self._open, self._index = "call", self._index + 1
                function = Function(name=name, arguments="")
                yield ToolCallStart(
                    self._index, _call(ToolCall(id=call_id, type="function", function=function))
                )
            case ToolArguments(text=text):
                yield ToolCallDelta(self._index, _call(ToolCall(function=Function(arguments=text))))
            case Finished():
                yield from self._end()
                yield MessageEnd(_end(event))

    def _begin(self, part: Literal["text", "thinking"]) -> Iterator[StreamEvent]:
        """Open a part, unless it is open."""
        if self._open != part:
            yield from self._end()
            self._open, self._index = part, self._index + 1
            content = (
                Content(type="text", text="") if part == "text" else Content(type="thinking", thinking="")
            )
            yield ContentStart(self._index, _content(content))

    def _end(self) -> Iterator[StreamEvent]:
        """Close the open part."""
        if self._open is not None:
            yield ToolCallEnd(self._index) if self._open == "call" else ContentEnd(self._index)
        self._open = None


def _content(content: Content) -> Delta:
    return Delta(MessageDelta(content=content))


def _call(call: ToolCall) -> Delta:
    return Delta(MessageDelta(tool_calls=call))


def _end(event: Finished) -> End:
    reasons: dict[str, FinishReason] = {"length": "MAX_TOKENS", "tool_calls": "TOOL_CALL"}
    stopped: FinishReason = "STOP_SEQUENCE" if isinstance(event.stop_reason, str) else "COMPLETE"
    tokens = Tokens(event.usage.prompt_tokens, event.usage.completion_tokens)
    return End(finish_reason=reasons.get(event.reason, stopped), usage=Usage(tokens, tokens))


def _fold_content(chunks: Sequence[StreamEvent], start: ContentStart) -> Content:
    pieces = [
        chunk.delta.message.content
        for chunk in chunks
        if isinstance(chunk, ContentDelta) and chunk.index == start.index
    ]
    text = "".join(piece.text or piece.thinking or "" for piece in pieces if piece is not None)
    first = start.delta.message.content
    if first is not None and first.type == "thinking":
        return Content(type="thinking", thinking=text)
    return Content(type="text", text=text)


def _fold_call(chunks: Sequence[StreamEvent], start: ToolCallStart) -> ToolCall:
    pieces = [
        chunk.delta.message.tool_calls
        for chunk in chunks
        if isinstance(chunk, ToolCallDelta) and chunk.index == start.index
    ]
    arguments = "".join(piece.function.arguments or "" for piece in pieces if piece is not None)
    call = start.delta.message.tool_calls
    assert call is not None
    return ToolCall(
        id=call.id, type="function", function=Function(name=call.function.name, arguments=arguments)
    )
