"""Hostile texts: a parser's own notation, whole and in pieces, mixed with texts that are hard to parse."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from fuzz.subjects import Subject

from fllm import ParserContext, Tool
from fllm.constraints import AnyOf, Concat, Constraint, ConstString, JsonSchema, Repeat, TextUntil
from fllm.structured_output.tool_format import ToolFormat

TOOLS = (
    Tool(
        "f",
        None,
        {
            "type": "object",
            "properties": {
                "a": {"type": "integer"},
                "b": {"type": ["string", "null"]},
                "c": {"type": "array", "items": {"type": "number"}},
                "d": {"$ref": "#/$defs/D"},
                "e": {"enum": [1, "x", None, 2.5]},
                "g": {"anyOf": [{"type": "boolean"}, {"$ref": "#/properties/g"}]},
            },
            "required": ["a"],
            "$defs": {"D": {"type": "object", "properties": {"k": {"type": "string"}}}},
        },
    ),
    # A client may send such a schema, although it is not valid.
    Tool(
        "get_weather",
        "",
        {
            "properties": {
                "a": {"type": {"type": "string"}, "enum": "x"},
                "b": {"$ref": "#/properties/b"},
                "c": {"type": None, "anyOf": {"type": "string"}, "items": 5},
                "d": True,
                "e": {"type": "object", "properties": [1]},
                "g\n": {"type": "string"},
                "": {"const": {"x": [1]}},
            },
            "required": {"a": 1},
        },
    ),
    Tool("h", None, {"properties": 5}),
    Tool("서울.x-y:1/z", None, {}),
)

PROMPTS = ("", "Hi", "<think>", "<think>\n", "</think>\n\n", "[THINK]", "<|channel>", "<|start|>assistant")
KWARGS: tuple[dict[str, Any], ...] = (
    {},
    {"enable_thinking": True},
    {"enable_thinking": False},
    {"thinking": "no"},
    {"thinking": None},
)

BROKEN = (
    "\ud800", "\udfff", "\ud83d", "\ufffd", "\ufeff", "\x00", "\x7f", "\u0301", "\u200d", "\u2028", "\x85",
    "é", "서울", "😀", "👩\u200d🚀", "\\ud83d\\ude00", "\\ud800", "\\u0000", "\\x00", "\\N{BULLET}", "\\N{x}",
)  # fmt: skip
"""Halves of pairs, marks without a letter, white space of all kinds, and escapes."""

NUMBERS = (
    "1e400", "-1e400", "NaN", "-NaN", "Infinity", "-Infinity", "-0", "-0.0", "1.", ".5", "0x1F", "1_000",
    "01",
    "1e-400", "٣", "²", "9" * 30, "9" * 600, "1" + "0" * 5000, "1.5E+3", "+1", "--1", "1e", "0b2", "1e99999",
)  # fmt: skip

JSON = (
    "{", "}", "[", "]", '"', "'", ":", ",", "\\", '\\"', "{}", "[]", "null", "true", "false", "None", "True",
    '{"name": "f", "arguments": {"a": 1}}', '{"name": "f", "parameters": {"a": 1}}', '{"name": "f"',
    '"arguments": ', '"parameters": null', '{"name": "\\ud800", "arguments": {}}', '{"a": 1, "a": 2}',
    '{"name": "f", "name": "h", "arguments": "{\\"a\\": 1}"}', '{"name": "f", "arguments": 1e400}',
    '{"name": "", "arguments": {}}', '{"name": "f", "arguments": "', '{"', '{"a', '"a": "b"',
    "{'a': 1}", '{"a":',
)  # fmt: skip

PYTHON = (
    "f(", "f(a=1)", "[f(a=1)]", "[f(a=1), h()]", "f(a='x', b=[1, {'k': None}])", "(", ")", "=", "'''", '"""',
    "r'",
    "b'x'", "f'{a}'", "(1,)", "(1)", "a=", "[f(a='", "\\'", "lambda: 0", "a.b.c(x=1)", "f(a=1, a=2)", "f(1)",
)  # fmt: skip

WORDS = (
    " ",
    "  ",
    "\n",
    "\t",
    "\r\n",
    "a",
    "f",
    "call:",
    "So ",
    "functions.f:0",
    "[0]",
    "```json\n",
    "```",
    ";",
)

DEEP = ("[", '{"a":', "{", "(", "'", '"', "f(", "<", "[[f(a=", '{"a":[')
DEPTHS = (3, 40, 255, 256, 257, 1000, 10_000)

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


def hostile_text(subject: Subject, draw: Random) -> str:
    """Return a text of up to some hundred characters, rarely a longer one."""
    parts = _parts(subject)
    pool: Sequence[Callable[[], str]] = (
        lambda: draw.choice(parts),
        lambda: draw.choice(parts),
        lambda: _half(draw.choice(parts), draw),
        lambda: draw.choice(JSON),
        lambda: draw.choice(PYTHON),
        lambda: draw.choice(WORDS),
        lambda: draw.choice((*BROKEN, *NUMBERS)),
        lambda: _call(subject, draw),
        lambda: _call(subject, draw),
    )
    text = "".join(draw.choice(pool)() for _ in range(draw.randint(1, 12)))
    if draw.random() < 0.02:
        text += _call(subject, draw) + draw.choice(DEEP) * draw.choice(DEPTHS) + draw.choice(parts)
    for _ in range(draw.choice((0, 0, 1, 2))):
        text = _mutated(text, parts, draw)
    return text


def pieces_of(text: str, draw: Random) -> list[str]:
    """Divide the text into characters, into equal pieces, or anywhere; pieces may be empty."""
    size = draw.choice((0, 1, 1, 2, 7))
    if size:
        return [text[at : at + size] for at in range(0, len(text), size)]
    cuts = sorted(draw.randint(0, len(text)) for _ in range(draw.randint(1, 8)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def hostile_context(draw: Random) -> ParserContext:
    """Return a parser context with values that a client chooses."""
    tools = TOOLS if draw.random() < 0.5 else ()
    return ParserContext(prompt=draw.choice(PROMPTS), tools=tools, template_kwargs=draw.choice(KWARGS))


def _parts(subject: Subject) -> Sequence[str]:
    return subject.markers or ("<think>", "</think>", "<tool_call>", "</tool_call>")


def _call(subject: Subject, draw: Random) -> str:
    """Return a call in the format that the parser declares, often damaged."""
    declared = getattr(subject.make, "tool_format", None)
    if not isinstance(declared, ToolFormat):
        return "".join(draw.choice(_parts(subject)) + draw.choice(WORDS) for _ in range(3))
    text = written(declared.calls(TOOLS), draw)
    tokens = _TOKEN.findall(text)
    chance = draw.random()
    if chance < 0.4 or not tokens:
        return text
    cut = draw.randrange(len(tokens))
    if chance < 0.6:
        return "".join(tokens[:cut])
    if chance < 0.7:
        return "".join(tokens[cut:])
    tokens[cut] = draw.choice((*BROKEN, *NUMBERS, *JSON, *PYTHON, *WORDS, *_parts(subject), ""))
    return "".join(tokens)


def written(constraint: Constraint, draw: Random) -> str:
    """Return a text that a constraint may allow; its leaves are not always valid."""
    match constraint:
        case ConstString(text=text):
            return text
        case Concat(parts=parts):
            return "".join(written(part, draw) for part in parts)
        case AnyOf(options=options):
            return written(draw.choice(options), draw) if options else ""
        case Repeat(item=item, separator=separator, min=least):
            return separator.join(written(item, draw) for _ in range(least + draw.randint(0, 1)))
        case TextUntil(end=end):
            return draw.choice((*WORDS, *BROKEN, *JSON)) + end
        case JsonSchema():
            return draw.choice(('{"a": 1}', "{}", '{"b": "x", "c": [1, 2.5]}', '"x"', "7", *NUMBERS))
        case _:
            return draw.choice(("x", "7", "''", *WORDS, *BROKEN))


def _half(text: str, draw: Random) -> str:
    cut = draw.randint(0, len(text))
    return text[:cut] if draw.random() < 0.7 else text[cut:]


def _mutated(text: str, parts: Sequence[str], draw: Random) -> str:
    start = draw.randint(0, len(text))
    end = min(len(text), start + draw.randint(0, 20))
    replacements = ("", text[start:end] * 2, draw.choice(parts), draw.choice((*BROKEN, *NUMBERS, *JSON)))
    return text[:start] + draw.choice(replacements) + text[end:]
