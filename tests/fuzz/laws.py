"""The laws that every parser must obey, whatever text it receives."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from fuzz.subjects import Subject
from msgspec import structs

from fllm import (
    ConstrainsOutput,
    Parser,
    ParserContext,
    ParserEvent,
    Reasoning,
    Text,
    ToolArguments,
    ToolStart,
)
from fllm.constraints import ANY_OBJECT
from fllm.errors import format_error
from fllm.parsing import Marker, MarkerSplitter, ReasoningParserBase, ToolCallParser
from fllm.testing import merge_events
from fllm.testing.parser_contracts import is_beginning_of_json, may_drop
from fllm_parsers.reasoning.identity import IdentityParser


def _prefix(subject: Subject) -> str:
    """Return the text that a parser puts before the output."""
    parser = subject.make
    return parser.prefix if isinstance(parser, type) and issubclass(parser, IdentityParser) else ""


def check(subject: Subject, context: ParserContext, pieces: Sequence[str], *, constrained: bool) -> None:
    """Raise `AssertionError` if the parser breaks a law with these pieces."""
    text = "".join(pieces)
    bodies = Bodies()
    whole = _events(subject, context, [text], constrained, bodies)
    divided = _events(subject, context, pieces, constrained, Bodies())
    assert divided == whole, f"the events depend on the division: {divided} and {whole}"
    kept = "".join(event.text for event in whole if isinstance(event, Text | Reasoning))
    assert _within(kept, _prefix(subject) + text), f"emitted text that is not in the input: {kept!r}"
    if subject.kind == "tool":
        _check_calls(subject, whole, text, kept)
        if isinstance(subject.make, type) and issubclass(subject.make, ToolCallParser) and not bodies.broken:
            _check_nothing_lost(text, kept + "".join(bodies.texts), _dropped_by_calls(subject.make))
    else:
        _check_reasoning(subject, whole, text, kept, constrained)


class Bodies:
    """The bodies of calls, which a tool-call parser does not emit as text."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.broken = False
        """Whether one broke off, so that what it held is partly emitted."""


def _events(
    subject: Subject, context: ParserContext, pieces: Iterable[str], constrained: bool, bodies: Bodies
) -> list[ParserEvent]:
    try:
        parser = subject.make(structs.replace(context, constrained=constrained))
        if constrained and isinstance(parser, ConstrainsOutput):
            parser.constrain_output(ANY_OBJECT)
        _record_bodies(parser, bodies)
        events = [event for piece in pieces for event in parser.feed(piece)]
        found = merge_events([*events, *parser.finish()])
        again = merge_events(parser.finish())
    except Exception as error:
        raise AssertionError(f"the parser raised {format_error(error)}") from error
    assert not again, f"a second call of finish() returned {again}"
    return _without_ids(found)


def _record_bodies(parser: Parser, bodies: Bodies) -> None:
    """Append the bodies of calls to ``bodies``."""
    if not isinstance(parser, ToolCallParser):
        return
    new_scanner, end_body, break_body = parser.new_scanner, parser._end_body, parser.break_body
    pieces: list[str] = []

    def recording_scanner() -> Any:
        scanner = new_scanner()
        feed = scanner.feed
        pieces.clear()

        def recording_feed(text: str, start: int = 0) -> None:
            before = scanner.length
            feed(text, start)
            pieces.append(text[start : start + scanner.length - before])

        scanner.feed = recording_feed
        return scanner

    def recording_end() -> None:
        bodies.texts.append("".join(pieces))
        pieces.clear()
        end_body()

    def recording_break(scanner: Any, rest: str) -> str:
        bodies.broken = True
        return break_body(scanner, rest)

    parser.new_scanner = recording_scanner  # type: ignore[method-assign]
    parser._end_body = recording_end  # type: ignore[method-assign]
    parser.break_body = recording_break  # type: ignore[method-assign]


def _without_ids(events: Iterable[ParserEvent]) -> list[ParserEvent]:
    """Return the same events without IDs, which may be random."""
    return [
        ToolStart(event.index, event.name, event.id and "id") if isinstance(event, ToolStart) else event
        for event in events
    ]


def _check_calls(subject: Subject, events: Iterable[ParserEvent], text: str, kept: str) -> None:
    arguments: list[str] = []
    for event in events:
        match event:
            case ToolStart(index=index, name=name):
                assert index == len(arguments), "calls are numbered 0, 1, 2..."
                assert name, "a call has no name"
                assert name.isprintable(), f"no client could take the name {name!r}"
                arguments.append("")
            case ToolArguments(index=index, text=piece):
                assert index < len(arguments), "arguments precede their call"
                arguments[index] += piece
            case Reasoning():
                raise AssertionError("a tool-call parser emitted reasoning")
            case _:
                pass
    for number, each in enumerate(arguments, start=1):
        if number < len(arguments) or not is_beginning_of_json(each):  # the last one may be cut off
            _check_json(each)
        each.encode()
    assert arguments or kept == text or may_drop(subject.make, text, kept), (
        f"no call was emitted, and only this text: {kept!r}"
    )


def _check_json(arguments: str) -> None:
    try:
        json.loads(arguments, parse_constant=_refuse)
        arguments.encode()
    except ValueError as error:
        raise AssertionError(f"the arguments {arguments!r} are not JSON: {error}") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _check_reasoning(
    subject: Subject, events: Iterable[ParserEvent], text: str, kept: str, constrained: bool
) -> None:
    calls = [event for event in events if not isinstance(event, Text | Reasoning)]
    assert not calls, f"a reasoning parser emitted {calls}"
    make = subject.make
    if constrained or not (isinstance(make, type) and issubclass(make, ReasoningParserBase)):
        return
    _check_nothing_lost(text, kept, "".join((*subject.markers, make.header)))
    reasoning = "".join(event.text for event in events if isinstance(event, Reasoning))
    if make.stray_markers != "text":
        parts = MarkerSplitter(make.visible_tokens)
        tags = {*make.opening, *make.closing}
        untagged = [_text_of(part) for part in (*parts.feed(text), *parts.finish())]
        untagged = [part for part in untagged if part not in tags]
        assert _within(reasoning, "".join(untagged)), f"a reasoning tag is left in {reasoning!r}"


def _check_nothing_lost(text: str, kept: str, droppable: str) -> None:
    """Check that each character that is not in ``droppable`` is emitted as often as it was received."""
    lost = Counter(text)
    lost.subtract(kept)
    wrong = {
        char: count
        for char, count in lost.items()
        if count < 0 or (count and not _is_droppable(char, droppable))
    }
    assert not wrong, f"characters that were lost, or duplicated if the count is negative: {wrong}"


def _is_droppable(char: str, droppable: str) -> bool:
    return char.isspace() or char in droppable


def _dropped_by_calls(parser: type[ToolCallParser]) -> str:
    markers = (*parser.opening, *parser.closing, *parser.section_markers, *(parser.ignored_section or ()))
    return "".join(markers) + parser.skip_before + parser.skip_after


def _within(part: str, text: str) -> bool:
    """Return whether ``text`` has the characters of ``part`` in this order, perhaps with others between."""
    at = 0
    for char in part:
        at = text.find(char, at) + 1
        if not at:
            return False
    return True


def _text_of(part: str | Marker) -> str:
    return part if isinstance(part, str) else part.text
