"""Samples of the parsers of a request: the text that each received, and its events."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from fllm.events import ParserEvent, Text
from fllm.interfaces import LoadedParser, ParserContext
from fllm.parsing.sample import RAW, ParserKind, ParserSample, ParserStage
from fllm.pipeline.pipeline import PipelineRequest


class SampledParsers(Struct, frozen=True):
    """The parsers of a request, and what they read of it."""

    context: ParserContext
    reasoning: LoadedParser | None
    tool_calls: LoadedParser | None

    @classmethod
    def of(cls, request: PipelineRequest) -> SampledParsers:
        """Return those of a request, without the rest of it, such as images."""
        return cls(request.parser_context, request.reasoning_parser, request.tool_parser)


def make_samples(parsers: SampledParsers, text: str, model: str) -> Iterator[ParserSample]:
    """Yield a sample for each parser of a request, or one of the parser ``raw`` if it has none.

    A parser is called again: the contract of parsers is that the division of a text changes nothing.
    """
    context = parsers.context
    kinds: list[tuple[ParserKind, LoadedParser | None]] = [
        ("reasoning", parsers.reasoning),
        ("tool-call", parsers.tool_calls),
    ]
    used: list[tuple[ParserKind, LoadedParser]] = [
        (kind, loaded) for kind, loaded in kinds if loaded is not None and loaded.name
    ]
    if not used:
        yield ParserSample.from_context(
            context, parser=RAW, kind="tool-call", text=text, events=(), model=model
        )
    events: list[ParserEvent] = [Text(text)] if text else []
    for kind, loaded in used:
        stage = ParserStage(loaded.name, kind, loaded(context))
        events = stage.run(events)
        sample = stage.sample(context, model)
        if sample.text:
            yield sample
