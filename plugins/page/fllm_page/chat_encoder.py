"""Encoder of `POST /page/chat`: pipeline outputs to events."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from fllm import (
    ErrorInfo,
    Event,
    Finished,
    Generation,
    Reasoning,
    RequestRecord,
    ResponseEncoder,
    SequenceOutput,
    Text,
    ToolArguments,
    ToolStart,
    Usage,
)
from fllm.concurrency.turn_executor import Pieces
from fllm.pipeline.output_processor import OutputToken
from fllm.tokenizer import Tokenizer
from fllm_page.chat_events import (
    MIN_LOGPROB,
    Alternative,
    ChatEvent,
    Done,
    ErrorEvent,
    Finish,
    ParsedEvent,
    Prompt,
    Raw,
    ShownToken,
    Timings,
    TokenEvent,
)

PIECE_TOKENS = 64
"""Number of generated tokens that are encoded at once: a few milliseconds with 20 alternatives."""
PIECE_PROMPT_TOKENS = 2048
"""Number of tokens of a prompt that are encoded at once."""


class ParserNames(Struct, frozen=True):
    """The parsers of a request; ``None`` for each that it does not have."""

    reasoning: str | None
    tool_calls: str | None

    def of(self, event: Event) -> str | None:
        """Return the parser that emitted an event: the last one that reads text."""
        if isinstance(event, Reasoning):
            return self.reasoning
        return self.tool_calls or (self.reasoning if isinstance(event, Text) else None)


def parser_names(generation: Generation) -> ParserNames:
    """Return the names of the parsers of a request."""
    reasoning, tool_calls = generation.request.reasoning_parser, generation.request.tool_parser
    return ParserNames(reasoning.name if reasoning else None, tool_calls.name if tool_calls else None)


class PageChatEncoder(ResponseEncoder[ChatEvent]):
    """Encodes the outputs of a chat. With ``prompt``, it also shows tokens and the text of the parsers."""

    def __init__(
        self, generation: Generation, tokenizer: Tokenizer, request_id: str, prompt: Prompt | None = None
    ) -> None:
        self._generation = generation
        self._tokenizer = tokenizer
        self._request_id = request_id
        self._prompt = prompt
        self._parsers = parser_names(generation)
        self._usages: dict[int, Usage] = {}
        """Usage of each choice so far."""
        self._tokens: list[TokenEvent] = []
        """Events of the tokens of the output that follows, if they are encoded."""

    def start(self) -> list[ChatEvent]:
        """Return the prompt, if the request asks for it."""
        return [] if self._prompt is None else [self._prompt]

    def logprob_tokens(self, output: SequenceOutput) -> int:
        """Return the number of tokens whose events `feed` would make."""
        return 0 if self._prompt is None else len(output.tokens)

    def convert_logprobs(self, output: SequenceOutput) -> Pieces[None]:
        """Make the events of the tokens of an output in pieces, so that `feed` takes little time after it."""
        for start in range(0, len(output.tokens), PIECE_TOKENS):
            self._tokens += self._token_events(output.index, output.tokens[start : start + PIECE_TOKENS])
            yield 0

    def feed(self, output: SequenceOutput) -> list[ChatEvent]:
        """Return the events for an output: its tokens, what the parsers received, what they made of it."""
        index = output.index
        events: list[ChatEvent] = []
        if self._prompt is not None:
            tokens, self._tokens = self._tokens, []
            events += tokens or self._token_events(index, output.tokens)
            events += [Raw(index, output.raw_text)] if output.raw_text else []
        if index not in self._usages and self._generation.echo:
            events.append(ParsedEvent(index=index, type="text", parser=None, text=self._generation.echo))
        self._usages[index] = output.usage
        events += [self._encode(index, event) for event in output.events]
        return events

    def finish(self) -> list[ChatEvent]:
        """Return the end of the response."""
        return [
            Done(usage=self._total(), timings=timings(self._generation.record), request_id=self._request_id)
        ]

    def error(self, error: ErrorInfo) -> list[ErrorEvent]:
        """Return the event that ends a stream which fails."""
        return [ErrorEvent(error)]

    def _encode(self, index: int, event: Event) -> ChatEvent:
        parser = self._parsers.of(event)
        match event:
            case Text(text):
                return ParsedEvent(index=index, type="text", parser=parser, text=text)
            case Reasoning(text):
                return ParsedEvent(index=index, type="reasoning", parser=parser, text=text)
            case ToolStart(call, name, call_id):
                return ParsedEvent(
                    index=index, type="tool_start", parser=parser, call=call, name=name, id=call_id
                )
            case ToolArguments(call, text):
                return ParsedEvent(index=index, type="tool_arguments", parser=parser, call=call, text=text)
            case Finished():
                return Finish(index, event.reason, event.stop_reason)

    def _token_events(self, index: int, tokens: Iterable[OutputToken]) -> Iterator[TokenEvent]:
        for token in tokens:
            logprob = token.logprob
            yield TokenEvent(
                index=index,
                id=token.token_id,
                text=token_text(self._tokenizer, token.token_id),
                logprob=None if logprob is None else max(logprob.logprob, MIN_LOGPROB),
                top=[
                    Alternative(i, token_text(self._tokenizer, i), max(value, MIN_LOGPROB))
                    for i, value in (logprob.top if logprob else ())
                ],
                allowed=token.allowed,
                forced=token.allowed == 1,
            )

    def _total(self) -> Usage:
        """Return the usage of all choices. The first one computes the prompt, for the others as well."""
        usages = self._usages.values()
        return Usage(
            prompt_tokens=self._generation.prompt_tokens,
            completion_tokens=sum(usage.completion_tokens for usage in usages),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
            cached_tokens=self._usages[0].cached_tokens if 0 in self._usages else 0,
        )


def shown_tokens(tokenizer: Tokenizer, token_ids: Sequence[int]) -> Pieces[list[ShownToken]]:
    """Return the tokens of a prompt with their texts."""
    shown: list[ShownToken] = []
    for start in range(0, len(token_ids), PIECE_PROMPT_TOKENS):
        ids = token_ids[start : start + PIECE_PROMPT_TOKENS]
        shown += [ShownToken(i, token_text(tokenizer, i)) for i in ids]
        yield 0
    return shown


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """Return the text of a token. Bytes of an incomplete character become escapes, such as ``\\xe2``."""
    return tokenizer.token_bytes(token_id).decode(errors="backslashreplace")


def timings(record: RequestRecord) -> Timings:
    """Return the times of a request until now, in seconds."""
    now = time.monotonic() if record.finished_at is None else record.finished_at
    submitted = record.submitted_at or now
    first = record.first_token_at or now
    seconds = {
        "queue": record.queue_time,
        "prefill": first - submitted - record.queue_time,
        "decode": now - first,
        "total": now - record.received_at,
    }
    return Timings(**{name: round(max(value, 0.0), 6) for name, value in seconds.items()})
