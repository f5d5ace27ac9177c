"""Convert a constraint to a grammar in llguidance's Lark dialect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence

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
from fllm.containment import mapped
from fllm.errors import format_error
from fllm.structured_output.json_schema import normalize_schema
from fllm_backends.grammars.json_rules import JsonRules
from fllm_backends.grammars.lark_rules import LarkRules, repeated, sequence
from fllm_backends.grammars.patterns import parse_pattern
from fllm_backends.grammars.rendering import render_regex


def to_lark(constraint: Constraint, note: Callable[[str], None] = lambda _: None) -> str:
    """Return the source of the grammar; raise `RequestError` if the constraint is not supported.

    ``note`` receives a line for each keyword of a schema that is not enforced as it stands.
    """
    if isinstance(constraint, Grammar):
        return to_lark_grammar(constraint.source)
    builder = _LarkBuilder(note)
    return "\n".join(["%llguidance {}", f"start: {builder.expression(constraint)}", builder.rules.text()])


def to_lark_grammar(source: str) -> str:
    """Return a grammar as Lark: unchanged, or translated from GBNF."""
    if "::=" not in source:
        return source
    from llguidance.gbnf_to_lark import gbnf_to_lark

    # The library raises plain exceptions.
    with mapped(lambda error: RequestError(f"invalid grammar: {format_error(error)}")):
        translated: str = gbnf_to_lark(source)
    return translated


class _LarkBuilder:
    """Builds expressions, and collects the rules that they refer to by name."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.rules = LarkRules()
        self._note = note

    def expression(self, constraint: Constraint) -> str:
        match constraint:
            case ConstString(text=text):
                return json.dumps(text, ensure_ascii=False)
            case JsonSchema(schema=schema, lenient=lenient):
                text = normalize_schema(schema, self._note, lenient=lenient)
                return JsonRules(self.rules, msgspec.json.decode(text)).start()
            case Regex(pattern=pattern):
                return self._terminal(render_regex(parse_pattern(pattern, full_match=True), in_json=False))
            case Grammar(source=source):
                return f"%lark {{\n{to_lark_grammar(source)}\n}}"
            case TextUntil(end=end, without=without):
                return self._text_until(end, without)
            case Concat(parts=parts):
                return self._concat(map(self.expression, parts))
            case AnyOf(options=options):
                return f"({' | '.join(map(self._rule_for, options))})"
            case Repeat():
                return self._repeat(constraint)
            case TriggeredTags():
                return self._triggered_tags(constraint)

    def _repeat(self, constraint: Repeat) -> str:
        item, lower, upper = self._rule_for(constraint.item), constraint.min, constraint.max
        if not constraint.separator or upper == 1:
            return repeated(item, lower, upper)
        more = sequence(json.dumps(constraint.separator, ensure_ascii=False), item)
        rest = repeated(more, max(lower - 1, 0), None if upper is None else upper - 1)
        whole = f"({sequence(item, rest)})"
        return whole if lower else f"{whole}?"

    def _triggered_tags(self, constraint: TriggeredTags) -> str:
        """Match text lazily up to a trigger, then one of its tags; repeat; end with text without triggers."""
        tags = []
        for trigger in constraint.triggers:
            matching = [tag for tag in constraint.tags if tag.begin.startswith(trigger)]
            bodies = (
                self._concat(
                    [
                        json.dumps(tag.begin[len(trigger) :], ensure_ascii=False),
                        self.expression(tag.content),
                        json.dumps(tag.end, ensure_ascii=False),
                    ]
                )
                for tag in matching
            )
            tags.append(f"{self._text_until(trigger)} ({' | '.join(map(self.rules.add, bodies))})")
        return f"({' | '.join(map(self.rules.add, tags))})* {self._text_without(constraint.triggers)}"

    def _text_without(self, texts: Iterable[str]) -> str:
        any_of = "|".join(map(_escaped, texts))
        return self.rules.add_terminal(f"/(?s:.*)/ & ~/(?s:.*)({any_of})(?s:.*)/")

    def _concat(self, parts: Iterable[str]) -> str:
        return f"({sequence(*parts)})"

    def _rule_for(self, constraint: Constraint) -> str:
        return self.rules.add(self.expression(constraint))

    def _terminal(self, pattern: str) -> str:
        return self.rules.add_terminal(f"/{pattern.replace('/', chr(92) + '/')}/")

    def _text_until(self, end: str, without: Sequence[str] = ()) -> str:
        text = self._text_without(without) if without else "/(?s:.*)/"
        return self.rules.add(f"{text} {json.dumps(end, ensure_ascii=False)}", attributes="[lazy]")


def _escaped(text: str) -> str:
    return re.escape(text).replace("/", "\\/").replace("\n", "n")
