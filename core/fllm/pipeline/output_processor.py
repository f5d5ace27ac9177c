"""One sequence's stages in a row: token ids in, events out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from fllm.events import Event, Finished, ParserEvent, Reasoning, Text, ToolStart, merged
from fllm.interfaces import Parser
from fllm.pipeline.detokenizer import Detokenizer
from fllm.pipeline.stop_strings import StopStrings
from fllm.tokenizer import Tokenizer
from fllm.values import EngineOutput, SamplingParams, TokenLogprob, Usage


class OutputToken(Struct, frozen=True):
    """A generated token, as log-probabilities show it."""

    token_id: int
    text_offset: int
    """Characters of the sequence's text before this token."""
    logprob: TokenLogprob | None = None


class SequenceOutput(Struct, frozen=True, kw_only=True):
    """What one step of the engine brought for one sequence; all that one write to the client carries."""

    index: int
    events: list[Event]
    """Merged; the sequence's last output ends with its only `Finished`."""
    tokens: list[OutputToken]
    prompt_logprobs: list[TokenLogprob | None] | None = None
    """On the first output, where asked for."""
    usage: Usage = Usage()
    """The sequence's cost so far."""


class OutputProcessor:
    """Detokenizer, stop strings, reasoning parser and tool-call parser of one sequence.

    A stage that the request does not need is left out. No stage knows its neighbours.
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
        reasoning_parser: Parser | None = None,
        tool_parser: Parser | None = None,
    ) -> None:
        visible = {
            token
            for parser in (reasoning_parser, tool_parser)
            for token in getattr(parser, "visible_tokens", ())
        }
        self._detokenizer = Detokenizer(
            tokenizer, skip_special_tokens=skip_special_tokens, visible=visible, context=context
        )
        self._stop = StopStrings(stop, include=include_stop)
        self._include_stop = include_stop
        self._reasoning_parser = reasoning_parser
        self._tool_parser = tool_parser
        self._index = index
        self._sampling = sampling
        self._prompt_tokens = prompt_tokens
        self._cached_tokens = 0
        self._completion_tokens = 0
        self._reasoning_tokens = ReasoningTokenCounter()
        self._offset = 0
        self._called = False
        self.finished = False
        """`Finished` has been emitted; what the backend still has is not wanted."""
        self.reason = ""
        """That of `Finished`."""

    def feed(self, step: EngineOutput) -> SequenceOutput:
        """Take one step of the backend."""
        self._cached_tokens = self._cached_tokens or step.cached_tokens
        events: list[Event] = []
        tokens: list[OutputToken] = []
        for position, token_id in enumerate(step.token_ids):
            logprob = step.logprobs[position] if step.logprobs else None
            tokens.append(OutputToken(token_id, self._offset, logprob))
            self._completion_tokens += 1
            is_stop = step.stop_token is not None and position == len(step.token_ids) - 1
            if self._include_stop or not is_stop:
                events += self._token(token_id)
            if self._stop.matched is not None:
                break
        if step.finish_reason or self._stop.matched is not None:
            events += self._finish(step)
        return SequenceOutput(
            index=self._index,
            events=merged(events),
            tokens=tokens,
            prompt_logprobs=step.prompt_logprobs,
            usage=self._usage(),
        )

    def _token(self, token_id: int) -> Iterable[ParserEvent]:
        text = self._detokenizer.feed(token_id)
        self._offset += len(text)
        # Stop strings count only once min_tokens exist, as stop tokens do.
        if self._completion_tokens > self._sampling.min_tokens:
            text = self._stop.feed(text)
        self._reasoning_tokens.hold(len(text))
        return self._parse(text)

    def _parse(self, text: str) -> list[ParserEvent]:
        if not text:
            return []
        if self._reasoning_parser is None:
            return self._call([Text(text)])
        events = merged(self._reasoning_parser.feed(text))
        self._reasoning_tokens.release(events)
        return self._call(events)

    def _call(self, events: list[ParserEvent]) -> list[ParserEvent]:
        if self._tool_parser is None:
            return events
        found: list[ParserEvent] = []
        for event in events:
            if isinstance(event, Text):
                found += self._noted(self._tool_parser.feed(event.text))
            else:
                found.append(event)
        return found

    def _noted(self, events: Iterable[ParserEvent]) -> list[ParserEvent]:
        """Events of the tool-call parser; that there was a call changes the reason of the end."""
        found = list(events)
        for event in found:
            if isinstance(event, ToolStart):
                self._called = True
        return found

    def _finish(self, step: EngineOutput) -> list[Event]:
        self.finished = True
        events: list[Event] = []
        if self._stop.matched is None:
            tail = self._detokenizer.finish()
            events += self._parse(self._stop.feed(tail) + self._stop.finish())
        if self._reasoning_parser is not None:
            rest = merged(self._reasoning_parser.finish())
            self._reasoning_tokens.release(rest)
            events += self._call(rest)
        if self._tool_parser is not None:
            events += self._noted(self._tool_parser.finish())
        self.reason = reason = self._reason(step)
        return [
            *events,
            Finished(reason=reason, stop_reason=self._stop_reason(step), usage=self._usage()),
        ]

    def _reason(self, step: EngineOutput) -> Literal["stop", "length", "tool_calls", "abort"]:
        reason = "stop" if self._stop.matched is not None else step.finish_reason or "stop"
        return "tool_calls" if self._called and reason == "stop" else reason

    def _stop_reason(self, step: EngineOutput) -> int | str | None:
        if self._stop.matched is not None:
            return self._stop.matched
        return step.stop_token if step.stop_token in self._sampling.stop_token_ids else None

    def _usage(self) -> Usage:
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            reasoning_tokens=self._reasoning_tokens.count,
            cached_tokens=self._cached_tokens,
        )


class ReasoningTokenCounter:
    """Counts the tokens that gave at least one character of reasoning; tags are not among them.

    A token whose text is held back (it may begin a tag, or end in half a character) is counted when that text
    comes out.
    """

    def __init__(self) -> None:
        self.count = 0
        self._held: list[int] = []

    def hold(self, length: int) -> None:
        """A token gave so many characters to the reasoning parser."""
        self._held.append(length)

    def release(self, events: list[ParserEvent]) -> None:
        """The reasoning parser emitted these events: the last characters it was given, but for tags."""
        released = sum([len(event.text) for event in events if isinstance(event, Reasoning)])
        found = released > 0
        # A token of no characters began the character that the next one completed.
        while self._held and (released > 0 or (found and self._held[-1] == 0)):
            released -= self._held.pop()
            self.count += 1
        if events:
            self._held.clear()
