"""What must hold of a parser, whatever text it is fed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
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
from fllm.parsing.markers import Marker, MarkerSplitter
from fllm.parsing.reasoning_parser import ReasoningParserBase
from fllm.parsing.tool_call_parser import ToolCallParser
from fllm.testing import merged


def check(subject: Subject, context: ParserContext, pieces: Sequence[str], *, constrained: bool) -> None:
    """Raise `AssertionError` where the parser, given these pieces, breaks a law."""
    text = "".join(pieces)
    bodies: list[str] = []
    whole = _heard(subject, context, [text], constrained, bodies)
    divided = _heard(subject, context, pieces, constrained, [])
    assert divided == whole, f"the events depend on the division: {divided} and {whole}"
    said = "".join(event.text for event in whole if isinstance(event, Text | Reasoning))
    assert _within(said, text), f"what is said is not of the text: {said!r}"
    if subject.kind == "tool":
        _check_calls(whole, text, said)
        if isinstance(subject.make, type) and issubclass(subject.make, ToolCallParser):
            _check_nothing_lost(text, said + "".join(bodies), _dropped_by_calls(subject.make))
    else:
        _check_reasoning(subject, whole, text, said, constrained)


def _heard(
    subject: Subject, context: ParserContext, pieces: Iterable[str], constrained: bool, bodies: list[str]
) -> list[ParserEvent]:
    try:
        parser = subject.make(structs.replace(context, constrained=constrained))
        if constrained and isinstance(parser, ConstrainsOutput):
            parser.constrain_output(ANY_OBJECT)
        _listen(parser, bodies)
        events = [event for piece in pieces for event in parser.feed(piece)]
        found = merged([*events, *parser.finish()])
        again = merged(parser.finish())
    except Exception as error:
        raise AssertionError(f"the parser raised {format_error(error)}") from error
    assert not again, f"finished twice, it gave {again}"
    return _without_ids(found)


def _listen(parser: Parser, bodies: list[str]) -> None:
    """Note the bodies of calls, which are the text that a parser of calls does not give back."""
    if not isinstance(parser, ToolCallParser):
        return
    read: Callable[[str], Any] = parser.parse_body

    def noting(body: str) -> Any:
        calls = read(body)
        if calls:
            bodies.append(body)
        return calls

    parser.parse_body = noting  # type: ignore[method-assign]


def _without_ids(events: Iterable[ParserEvent]) -> list[ParserEvent]:
    """The same events: an id may be random."""
    return [
        ToolStart(event.index, event.name, event.id and "id") if isinstance(event, ToolStart) else event
        for event in events
    ]


def _check_calls(events: Iterable[ParserEvent], text: str, said: str) -> None:
    arguments: list[str] = []
    for event in events:
        match event:
            case ToolStart(index=index, name=name):
                assert index == len(arguments), "calls are numbered 0, 1, 2..."
                assert name, "a call has no name"
                assert name.isprintable(), f"no client could take the name {name!r}"
                arguments.append("")
            case ToolArguments(index=index, text=piece):
                assert index < len(arguments), "arguments come before their call"
                arguments[index] += piece
            case Reasoning():
                raise AssertionError("a tool-call parser gave reasoning")
            case _:
                pass
    for each in arguments:
        _check_json(each)
    assert arguments or said == text, f"there is no call, and of the text this is left: {said!r}"


def _check_json(arguments: str) -> None:
    try:
        json.loads(arguments, parse_constant=_refuse)
        arguments.encode()
    except ValueError as error:
        raise AssertionError(f"the arguments {arguments!r} are no JSON: {error}") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _check_reasoning(
    subject: Subject, events: Iterable[ParserEvent], text: str, said: str, constrained: bool
) -> None:
    calls = [event for event in events if not isinstance(event, Text | Reasoning)]
    assert not calls, f"a reasoning parser gave {calls}"
    make = subject.make
    if constrained or not (isinstance(make, type) and issubclass(make, ReasoningParserBase)):
        return
    _check_nothing_lost(text, said, "".join((*subject.markers, make.header)))
    is_off = not any(isinstance(event, Reasoning) for event in events)
    if make.stray_markers != "text" and not is_off:
        parts = MarkerSplitter(make.visible_tokens)
        tags = {*make.opening, *make.closing}
        kept = [_written(part) for part in (*parts.feed(text), *parts.finish()) if _written(part) not in tags]
        assert _within(said, "".join(kept)), f"a tag of reasoning is left in {said!r}"


def _check_nothing_lost(text: str, kept: str, droppable: str) -> None:
    """Each character that is of no marker comes out as often as it came in."""
    lost = Counter(text)
    lost.subtract(kept)
    wrong = {
        char: count for char, count in lost.items() if count < 0 or (count and not _may_go(char, droppable))
    }
    assert not wrong, f"characters that were lost, or doubled if less than 0: {wrong}"


def _may_go(char: str, droppable: str) -> bool:
    return char.isspace() or char in droppable


def _dropped_by_calls(parser: type[ToolCallParser]) -> str:
    markers = (*parser.opening, *parser.closing, *parser.section_markers, *(parser.ignored_section or ()))
    return "".join(markers) + parser.skip_before + parser.skip_after


def _within(part: str, text: str) -> bool:
    """Whether the text has these characters in this order, perhaps with others between them."""
    at = 0
    for char in part:
        at = text.find(char, at) + 1
        if not at:
            return False
    return True


def _written(part: str | Marker) -> str:
    return part if isinstance(part, str) else part.text
