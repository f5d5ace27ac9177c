"""Texts to try a parser on, of which nothing is known but its class."""

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
WRONG = '{"name": {}, "arguments": "Seoul"}'
"""What looks like a call and is none."""
TEXTS = ("samples", "fragments")
MARKERS = ("markers", "opening", "closing", "visible_tokens")
OTHERS = (
    "section_markers",
    "inner_markers",
    "implicit_end",
    "template_flags",
    "stray_markers",
    "answer_tags",
)
"""Attributes of parser classes that hold strings."""
MARK = re.compile(r"(?=.*[^\w\s.,:-])(?!.*(?:\\|[.)\]][*+?]))\S.{0,38}\S")
"""Not a regular expression: those have marks within."""
TAG = re.compile(r"</?[|\w:=./-]+>?|\[/?[A-Z_]+\]")
"""A mark within a longer string, such as a regular expression or a docstring."""
MOST = 8
"""So many marks are paired with each other."""


def samples(parser: object) -> list[str]:
    """Its own ``samples``, or else texts made up: calls in its marks and its format, prose, JSON, tags."""
    own = _strings(parser, "samples")
    return own or list(dict.fromkeys(_made_up(parser)))


def fragments(parser: object) -> list[str]:
    """All the marks that its class names or its code writes, and halves of them."""
    names = (*TEXTS, *MARKERS, *OTHERS)
    named = [text for name in names for text in _strings(parser, name)]
    whole = dict.fromkeys([*named, *_written(parser)])
    return [*whole, *(text[: len(text) // 2] for text in whole if len(text) > 1)]


def markers(parser: object) -> list[str]:
    """What its class says divides reasoning and answer."""
    return [text for name in MARKERS for text in _strings(parser, name)]


def _made_up(parser: object) -> Iterator[str]:
    yield from PROSE
    yield from CALLS
    form = parser.tool_format if isinstance(parser, HasToolFormat) else None
    if form is not None:
        call = f'{form.begin}f{form.middle}{{"x": 1}}{form.end}'
        yield f"{form.before}{call}{form.after}"
        yield f"Look: {form.before}{call}{form.between}{call}{form.after} There."
    marks = markers(parser) or _written(parser)
    for begin in _strings(parser, "opening") or marks:
        for end in _strings(parser, "closing") or marks:
            yield from (f"So {begin}{text}{end} and on" for text in (CALLS[0], WRONG, "thus"))


def _written(parser: object) -> list[str]:
    """Strings in the code of its module that look like marks, such as ``</call>``."""
    module = inspect.getmodule(parser)
    if module is None:
        return []
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):  # compiled, or made by hand
        return []
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    texts = [text for text in found if isinstance(text, str)]
    tags = [tag for text in texts for tag in TAG.findall(_unescaped(text))]
    marks = dict.fromkeys([*tags, *(text for text in texts if MARK.fullmatch(text))])
    return [*marks][:MOST]


def _unescaped(pattern: str) -> str:
    return re.sub(r"\\(\W)", r"\1", pattern)


def _strings(parser: object, name: str) -> list[str]:
    value: Any = getattr(parser, name, ())
    if isinstance(value, str):
        return [value] if value else []
    return [text for text in value if isinstance(text, str) and text] if isinstance(value, Iterable) else []
