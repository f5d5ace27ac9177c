"""Samples of the parsers of a request: the text that each received, and its events."""

from __future__ import annotations

from collections.abc import Iterator

from fllm.events import ParserEvent, Text
from fllm.interfaces import LoadedParser
from fllm.parsing.sample import RAW, ParserKind, ParserSample, ParserStage
from fllm.pipeline.pipeline import PipelineRequest


def make_samples(request: PipelineRequest, text: str, model: str) -> Iterator[ParserSample]:
    """Yield a sample for each parser of a request, or one of the parser ``raw`` if it has none.

    A parser is called again: the contract of parsers is that the division of a text changes nothing.
    """
    context = request.parser_context
    parsers: list[tuple[ParserKind, LoadedParser | None]] = [
        ("reasoning", request.reasoning_parser),
        ("tool-call", request.tool_parser),
    ]
    used: list[tuple[ParserKind, LoadedParser]] = [
        (kind, loaded) for kind, loaded in parsers if loaded is not None and loaded.name
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
