"""A constraint as one of llguidance's Lark grammars."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from fllm import Constraint, RequestError
from fllm.constraints import (
    AnyOf,
    Concat,
    ConstString,
    Grammar,
    JsonSchema,
    Regex,
    Repeat,
    TextUntil,
    TriggeredTags,
)
from fllm.errors import format_error
from fllm.structured_output.json_schema import normalize_schema
from fllm_backends.grammars.patterns import read_pattern
from fllm_backends.grammars.rendering import regex

JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As the other backend writes JSON: `fllm_backends.grammars.structural_tags.SEPARATORS`."""


def lark(constraint: Constraint) -> str:
    """The source of the grammar; raises `RequestError` for what is not supported."""
    if isinstance(constraint, Grammar):
        return grammar(constraint.source)
    rules = _Rules()
    return "\n".join(["%llguidance {}", f"start: {rules.expression(constraint)}", *rules.lines])


def grammar(source: str) -> str:
    """Lark as it is, GBNF translated."""
    if "::=" not in source:
        return source
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        translated: str = gbnf_to_lark(source)
    except Exception as error:  # noqa: BLE001  the library raises nothing narrower
        raise RequestError(f"the grammar can't be read: {format_error(error)}") from None
    return translated


class _Rules:
    """Names what an expression can't say itself."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def expression(self, constraint: Constraint) -> str:
        match constraint:
            case ConstString(text=text):
                return json.dumps(text, ensure_ascii=False)
            case JsonSchema(schema=schema):
                made: dict[str, Any] = msgspec.json.decode(normalize_schema(schema))
                return f"%json {json.dumps({**made, 'x-guidance': JSON_STYLE})}"
            case Regex(pattern=pattern):
                return self._terminal(regex(read_pattern(pattern, whole=True), in_json=False))
            case Grammar(source=source):
                return f"%lark {{\n{grammar(source)}\n}}"
            case TextUntil(end=end, without=without):
                return self._lazy(end, without)
            case Concat(parts=parts):
                return self._all(map(self.expression, parts))
            case AnyOf(options=options):
                return f"({' | '.join(map(self._named, options))})"
            case Repeat():
                return self._repeated(constraint)
            case TriggeredTags():
                return self._free_text(constraint)

    def _repeated(self, constraint: Repeat) -> str:
        item, least, most = self._named(constraint.item), constraint.least, constraint.most
        if not constraint.separator or most == 1:
            return f"{item}{_times(least, most)}"
        more = f"({json.dumps(constraint.separator, ensure_ascii=False)} {item})"
        rest = _times(max(least - 1, 0), None if most is None else most - 1)
        found = f"({item} {more}{rest})"
        return found if least else f"{found}?"

    def _free_text(self, constraint: TriggeredTags) -> str:
        """Whoever wants a tag writes text up to its trigger, lazily; what ends the answer is any text."""
        tags = []
        for trigger in constraint.triggers:
            begun = [tag for tag in constraint.tags if tag.begin.startswith(trigger)]
            bodies = (
                self._all(
                    [
                        json.dumps(tag.begin[len(trigger) :], ensure_ascii=False),
                        self.expression(tag.content),
                        json.dumps(tag.end, ensure_ascii=False),
                    ]
                )
                for tag in begun
            )
            tags.append(f"{self._lazy(trigger)} ({' | '.join(map(self._rule, bodies))})")
        return f"({' | '.join(map(self._rule, tags))})* {self._none_of(constraint.triggers)}"

    def _none_of(self, texts: Iterable[str]) -> str:
        name = f"T{len(self.lines)}"
        any_of = "|".join(map(_escaped, texts))
        self.lines.append(f"{name}: /(?s:.*)/ & ~/(?s:.*)({any_of})(?s:.*)/")
        return name

    def _all(self, parts: Iterable[str]) -> str:
        return f"({' '.join(part for part in parts if part != _NOTHING) or _NOTHING})"

    def _named(self, constraint: Constraint) -> str:
        return self._rule(self.expression(constraint))

    def _rule(self, expression: str) -> str:
        name = f"r{len(self.lines)}"
        self.lines.append(f"{name}: {expression}")
        return name

    def _terminal(self, pattern: str) -> str:
        name = f"T{len(self.lines)}"
        self.lines.append(f"{name}: /{pattern.replace('/', chr(92) + '/')}/")
        return name

    def _lazy(self, end: str, without: Sequence[str] = ()) -> str:
        text = self._none_of(without) if without else "/(?s:.*)/"
        name = f"l{len(self.lines)}"
        self.lines.append(f"{name}[lazy]: {text} {json.dumps(end, ensure_ascii=False)}")
        return name


_NOTHING = '""'


def _escaped(text: str) -> str:
    return re.escape(text).replace("/", "\\/").replace("\n", "n")


def _times(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"
