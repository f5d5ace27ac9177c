"""Generate texts to test a parser with, from its class and its source."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from fllm.interfaces import HasToolFormat

CALLS = (
    '{"name": "get_weather", "arguments": {"city": "Seoul", "days": [1, 2.5, null]}}',
    '{"name": "f", "parameters": {"text": "</x> {[\\"é\\"]}"}}',
    '[{"name": "f", "arguments": {}}, {"name": "get_weather", "arguments": {"city": ""}}]',
    "[get_weather(city='Seoul'), f()]",
)
PROSE = (
    "Hello! 5 < 6, and {this} is [no] call.",
    "<b>bold</b>\n```json\n{}\n```",
    '{"name": "get_weather", "arguments": {"city": "Se',
    "<|start|>assistant<|message|>",
)
INVALID_CALL = '{"name": {}, "arguments": "Seoul"}'
"""Text that resembles a call but is not valid."""
TEXT_ATTRIBUTES = ("samples", "fragments")
MARKER_ATTRIBUTES = ("markers", "opening", "closing", "visible_tokens")
OTHER_ATTRIBUTES = (
    "section_markers",
    "inner_markers",
    "implicit_end",
    "template_flags",
    "stray_markers",
    "answer_tags",
)
"""Other attributes of parser classes that contain strings."""
MARK = re.compile(r"(?=.*[^\w\s.,:-])(?!.*(?:\\|[.)\]][*+?]))\S.{0,38}\S")
"""Matches a string that is a mark as a whole. Excludes regular expressions, which contain marks."""
TAG = re.compile(r"</?[|\w:=./-]+>?|\[/?[A-Z_]+\]")
"""Matches a mark within a longer string, such as a regular expression or a docstring."""
MAX_MARKS = 8
"""Maximum number of marks from the source, because samples combine each with each."""


def samples(parser: object) -> list[str]:
    """Return the parser's ``samples``, or generated texts: calls in its format, prose, JSON, tags."""
    own = _strings(parser, "samples")
    return own or list(dict.fromkeys(_generate_samples(parser)))


def fragments(parser: object) -> list[str]:
    """Return all marks in the class's attributes or source, and the first half of each."""
    names = (*TEXT_ATTRIBUTES, *MARKER_ATTRIBUTES, *OTHER_ATTRIBUTES)
    named = [text for name in names for text in _strings(parser, name)]
    whole = dict.fromkeys([*named, *_marks_in_source(parser)])
    return [*whole, *(text[: len(text) // 2] for text in whole if len(text) > 1)]


def markers(parser: object) -> list[str]:
    """Return the markers that the class declares."""
    return [text for name in MARKER_ATTRIBUTES for text in _strings(parser, name)]


def _generate_samples(parser: object) -> Iterator[str]:
    yield from PROSE
    yield from CALLS
    tool_format = parser.tool_format if isinstance(parser, HasToolFormat) else None
    if tool_format is not None:
        call = f'{tool_format.begin}f{tool_format.middle}{{"x": 1}}{tool_format.end}'
        yield f"{tool_format.before}{call}{tool_format.after}"
        yield f"Look: {tool_format.before}{call}{tool_format.between}{call}{tool_format.after} There."
    marks = markers(parser) or _marks_in_source(parser)
    for begin in _strings(parser, "opening") or marks:
        for end in _strings(parser, "closing") or marks:
            yield from (f"So {begin}{text}{end} and on" for text in (CALLS[0], INVALID_CALL, "thus"))


def _marks_in_source(parser: object) -> list[str]:
    """Return strings in the source of the parser's module that look like marks, such as ``</call>``."""
    module = inspect.getmodule(parser)
    if module is None:
        return []
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):  # compiled code, or a module without a source file
        return []
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    texts = [text for text in constants if isinstance(text, str)]
    tags = [tag for text in texts for tag in TAG.findall(_unescaped(text))]
    marks = dict.fromkeys([*tags, *(text for text in texts if MARK.fullmatch(text))])
    return [*marks][:MAX_MARKS]


def _unescaped(pattern: str) -> str:
    return re.sub(r"\\(\W)", r"\1", pattern)


def _strings(parser: object, name: str) -> list[str]:
    value: Any = getattr(parser, name, ())
    if isinstance(value, str):
        return [value] if value else []
    return [text for text in value if isinstance(text, str) and text] if isinstance(value, Iterable) else []
