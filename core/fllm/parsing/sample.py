"""Samples of parsers: what a model wrote, and the events that a parser made of it, as lines of JSON."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from fllm.errors import ConfigError
from fllm.events import ParserEvent, Text, merge_events
from fllm.files import read_bounded
from fllm.interfaces import Parser, ParserContext
from fllm.parsing.request_tools import from_tools, to_tools
from fllm.requests.chat import ChatTool

ParserKind = Literal["tool-call", "reasoning"]

RAW = "raw"
"""The parser that passes text on. Its events say nothing about other parsers, so samples leave them out."""
PROMPT_END = 64
"""Maximum number of characters of `ParserSample.prompt_end`: enough for markers that open the reasoning."""
MAX_SAMPLES_BYTES = 256 * 1024**2
"""Maximum size of a file of samples."""


class ParserSample(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sequence, as one parser received it. Files have one JSON object per line (JSONL)."""

    parser: str
    """Name of the parser, as in ``--tool-call-parser`` and ``--reasoning-parser``."""
    kind: ParserKind
    text: str
    """What the parser received: of a tool-call parser, the text that the reasoning parser left."""
    events: tuple[ParserEvent, ...] | None = None
    """Merged events that the parser made of it; ``None``: not known."""
    tools: tuple[ChatTool, ...] = ()
    """Tools of the request, in the form of a request."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables of the chat template, such as ``enable_thinking``."""
    prompt_end: str = ""
    """Last characters of the rendered prompt, in which the template may have opened the reasoning."""
    continued_message: str | None = None
    """As in `fllm.ParserContext`, like the two fields below."""
    auto_selected: bool = False
    constrained: bool = False
    model: str = ""
    """Name of the model that wrote the text."""

    @classmethod
    def from_context(
        cls,
        context: ParserContext,
        *,
        parser: str,
        kind: ParserKind,
        text: str,
        events: Iterable[ParserEvent],
        model: str = "",
    ) -> ParserSample:
        """Return a sample with what a parser read of its request."""
        return cls(
            parser=parser,
            kind=kind,
            text=text,
            events=None if parser == RAW else tuple(merge_events(events)),
            tools=from_tools(context.tools),
            chat_template_kwargs=dict(context.template_kwargs),
            prompt_end=context.prompt[-PROMPT_END:] if kind == "reasoning" else "",
            continued_message=context.continued_message,
            auto_selected=context.auto_selected,
            constrained=context.constrained,
            model=model,
        )

    def context(self, options: Any = None) -> ParserContext:
        """Return the context to make a parser with. ``options``: those of its plugin."""
        return ParserContext(
            prompt=self.prompt_end,
            tools=to_tools(self.tools),
            template_kwargs=self.chat_template_kwargs,
            continued_message=self.continued_message,
            auto_selected=self.auto_selected,
            constrained=self.constrained,
            options=options,
        )

    def parse(self, parser: Parser) -> tuple[ParserEvent, ...]:
        """Return the merged events of a new parser for the text."""
        events = list(parser.feed(self.text)) if self.text else []
        return tuple(merge_events([*events, *parser.finish()]))

    def to_json(self) -> bytes:
        """Return the sample as a line of JSON, without the end of the line."""
        return msgspec.json.encode(self)


class ParserStage:
    """A parser for the text that the parser before it leaves."""

    def __init__(self, name: str, kind: ParserKind, parser: Parser) -> None:
        self.name = name
        self._kind: ParserKind = kind
        self._parser = parser
        self._received: list[str] = []
        self._events: list[ParserEvent] = []

    def run(self, events: Iterable[ParserEvent]) -> list[ParserEvent]:
        """Return all events, with those of this parser in the place of text."""
        after = [made for event in events for made in self._feed(event)]
        rest = [*self._parser.finish()]
        self._events += rest
        return merge_events([*after, *rest])

    def sample(self, context: ParserContext, model: str = "") -> ParserSample:
        """Return what the parser received and emitted."""
        return ParserSample.from_context(
            context,
            parser=self.name,
            kind=self._kind,
            text="".join(self._received),
            events=self._events,
            model=model,
        )

    def _feed(self, event: ParserEvent) -> Iterable[ParserEvent]:
        if not isinstance(event, Text):
            return [event]
        self._received.append(event.text)
        made = [*self._parser.feed(event.text)]
        self._events += made
        return made


def read_samples(file: str | Path) -> list[ParserSample]:
    """Return the samples of a file of lines of JSON. Raise `ConfigError` if a line is invalid."""
    try:
        content = read_bounded(Path(file), MAX_SAMPLES_BYTES)
    except OSError as error:
        raise ConfigError(f"{str(file)!r} can't be read: {error}") from error
    return decode_samples(content, str(file))


def decode_samples(content: bytes, where: str) -> list[ParserSample]:
    """Return the samples of lines of JSON. Raise `ConfigError`, with ``where`` and the line, as above."""
    lines = enumerate(content.split(b"\n"), start=1)
    return [_decode(line, f"{where}:{number}") for number, line in lines if line.strip()]


def _decode(line: bytes, where: str) -> ParserSample:
    try:
        return msgspec.json.decode(line, type=ParserSample)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{where}: this is not a sample of a parser: {error}") from error
