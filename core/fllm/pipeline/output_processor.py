"""The stages of one sequence: token ids in, events out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from fllm.events import Event, Finished, ParserEvent, Reasoning, Text, ToolStart, merge_events
from fllm.interfaces import Parser
from fllm.pipeline.contained_parser import ContainedParser
from fllm.pipeline.detokenizer import Detokenizer
from fllm.pipeline.stop_strings import StopStrings
from fllm.tokenizer import Tokenizer
from fllm.values import EngineOutput, SamplingParams, TokenLogprob, Usage


class OutputToken(Struct, frozen=True):
    """A generated token, for reporting log-probabilities."""

    token_id: int
    text_offset: int
    """Number of characters of the sequence's text before this token."""
    logprob: TokenLogprob | None = None
    allowed: int | None = None
    """Number of tokens that could have been here, where that is reported and something restricts them."""


class SequenceOutput(Struct, frozen=True, kw_only=True):
    """The result of one engine step for one sequence."""

    index: int
    events: list[Event]
    """Merged events. The sequence's last output ends with its only `Finished`."""
    tokens: list[OutputToken]
    prompt_logprobs: list[TokenLogprob | None] | None = None
    """Set on the first output, if requested: one entry per prompt token, ``None`` for the first token."""
    usage: Usage = Usage()
    """Usage of the sequence so far."""
    raw_text: str = ""
    """What the parsers received in this step: the text with the special tokens that they read."""


class OutputProcessor:
    """Runs one sequence through the detokenizer, stop strings, reasoning parser and tool-call parser.

    A stage that the request does not need is omitted. The stages are independent of each other.
    """

    def __init__(
        self,
        *,
        index: int,
        tokenizer: Tokenizer,
        sampling: SamplingParams,
        prompt_tokens: int,
        context: Sequence[int] = (),
        stop: tuple[str, ...] = (),
        include_stop: bool = False,
        skip_special_tokens: bool = True,
        visible_tokens: Collection[str] = (),
        reasoning_parser: Parser | None = None,
        tool_parser: Parser | None = None,
        calls_only: bool = False,
    ) -> None:
        self._detokenizer = Detokenizer(
            tokenizer, skip_special_tokens=skip_special_tokens, visible=visible_tokens, context=context
        )
        self._stop = StopStrings(stop, include=include_stop)
        self._include_stop = include_stop
        self._reasoning_parser = reasoning_parser
        self._tool_parser = tool_parser
        self._calls_only = calls_only
        self._index = index
        self._sampling = sampling
        self._prompt_tokens = prompt_tokens
        self._cached_tokens = 0
        self._completion_tokens = 0
        self._reasoning_tokens = ReasoningTokenCounter()
        self._offset = 0
        self._has_tool_call = False
        self._raw_text = ""
        self.finished = False
        """Whether `Finished` has been emitted; any further output of the backend must be discarded."""
        self.reason = ""
        """Finish reason, once finished."""

    def close(self) -> None:
        """Report the usage of the parsers. Call it once, also if the sequence is aborted."""
        for parser in (self._reasoning_parser, self._tool_parser):
            if isinstance(parser, ContainedParser):
                parser.close()

    def feed(self, output: EngineOutput) -> SequenceOutput:
        """Process one output of the backend."""
        self._cached_tokens = self._cached_tokens or output.cached_tokens
        self._raw_text = ""
        events: list[Event] = []
        tokens: list[OutputToken] = []
        for position, token_id in enumerate(output.token_ids):
            logprob = output.logprobs[position] if output.logprobs else None
            tokens.append(OutputToken(token_id, self._offset, logprob))
            self._completion_tokens += 1
            is_stop = output.stop_token is not None and position == len(output.token_ids) - 1
            if self._include_stop or not is_stop:
                events += self._process_token(token_id)
            if self._stop.matched is not None:
                break
        if output.finish_reason or self._stop.matched is not None:
            events += self._finish(output)
        if output.allowed is not None:
            counts = zip(tokens, output.allowed, strict=False)  # a stop string may drop the last tokens
            tokens = [replace(token, allowed=count if count > 0 else None) for token, count in counts]
        return SequenceOutput(
            index=self._index,
            events=merge_events(events),
            tokens=tokens,
            prompt_logprobs=output.prompt_logprobs,
            usage=self._usage(),
            raw_text=self._raw_text,
        )

    def _process_token(self, token_id: int) -> Iterable[ParserEvent]:
        text = self._detokenizer.feed(token_id)
        self._offset += len(text)
        # Like stop tokens, stop strings are ignored until there are min_tokens tokens.
        if self._completion_tokens > self._sampling.min_tokens:
            text = self._stop.feed(text)
        self._reasoning_tokens.add(len(text))
        return self._parse_text(text)

    def _parse_text(self, text: str) -> list[ParserEvent]:
        if not text:
            return []
        self._raw_text += text
        if self._reasoning_parser is None:
            return self._parse_tool_calls([Text(text)])
        events = merge_events(self._reasoning_parser.feed(text))
        self._reasoning_tokens.release(events)
        return self._parse_tool_calls(events)

    def _parse_tool_calls(self, events: list[ParserEvent]) -> list[ParserEvent]:
        if self._tool_parser is None:
            return events
        parsed: list[ParserEvent] = []
        for event in events:
            if isinstance(event, Text):
                parsed += self._track_tool_calls(self._tool_parser.feed(event.text))
            else:
                parsed.append(event)
        return parsed

    def _track_tool_calls(self, events: Iterable[ParserEvent]) -> list[ParserEvent]:
        """Record whether the tool-call parser emitted a call, since that changes the finish reason."""
        emitted = list(events)
        for event in emitted:
            if isinstance(event, ToolStart):
                self._has_tool_call = True
        return emitted

    def _finish(self, output: EngineOutput) -> list[Event]:
        self.finished = True
        events: list[Event] = []
        if self._stop.matched is None:
            tail = self._detokenizer.finish()
            events += self._parse_text(self._stop.feed(tail) + self._stop.finish())
        if self._reasoning_parser is not None:
            rest = merge_events(self._reasoning_parser.finish())
            self._reasoning_tokens.release(rest)
            events += self._parse_tool_calls(rest)
        if self._tool_parser is not None:
            events += self._track_tool_calls(self._tool_parser.finish())
        if self._calls_only and (output.finish_reason != "stop" or self._stop.matched is not None):
            events = [event for event in events if not isinstance(event, Text)]
        self.reason = reason = self._finish_reason(output)
        return [
            *events,
            Finished(reason=reason, stop_reason=self._stop_reason(output), usage=self._usage()),
        ]

    def _finish_reason(self, output: EngineOutput) -> Literal["stop", "length", "tool_calls", "abort"]:
        reason = "stop" if self._stop.matched is not None else output.finish_reason or "stop"
        return "tool_calls" if self._has_tool_call and reason == "stop" else reason

    def _stop_reason(self, output: EngineOutput) -> int | str | None:
        if self._stop.matched is not None:
            return self._stop.matched
        return output.stop_token if output.stop_token in self._sampling.stop_token_ids else None

    def _usage(self) -> Usage:
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            reasoning_tokens=self._reasoning_tokens.count,
            cached_tokens=self._cached_tokens,
        )


class ReasoningTokenCounter:
    """Counts the tokens that contributed at least one character of reasoning, which excludes tags.

    A token whose text is pending (it may begin a tag, or end in an incomplete character) is counted once that
    text is emitted.
    """

    def __init__(self) -> None:
        self.count = 0
        self._pending: list[int] = []

    def add(self, length: int) -> None:
        """Record that a token contributed ``length`` characters to the reasoning parser's input."""
        self._pending.append(length)

    def release(self, events: list[ParserEvent]) -> None:
        """Count the tokens of these events of the reasoning parser: its latest input, except tags."""
        released = sum([len(event.text) for event in events if isinstance(event, Reasoning)])
        has_reasoning = released > 0
        # A token without characters began the character that the next token completed.
        while self._pending and (released > 0 or (has_reasoning and self._pending[-1] == 0)):
            released -= self._pending.pop()
            self.count += 1
        if events:
            self._pending.clear()
