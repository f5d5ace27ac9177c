"""Write the rules of a normalized JSON schema, in the layouts in which models write JSON.

::

    {"a": 1, "b": [2, 3]}      spaced: what most training data has on one line
    {"a":1,"b":[2,3]}          compact
    {                          lines: after each brace and comma there is a line break and indentation,
      "a": 1,                  or one space
      "b": [2, 3]
    }

Each object and array has a layout of its own. The model chooses it with the token after the brace or the
first key. From then on, keys and separators are forced. White space is never longer than `GAP`: a small model
might write it forever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from fllm import RequestError
from fllm_backends.grammars.lark_rules import EMPTY, LarkRules, repeated, sequence
from fllm_backends.grammars.patterns import (
    ANY_CHARACTER,
    ANY_TEXT,
    CharClass,
    Node,
    RegexRepeat,
    matches,
    parse_pattern,
)
from fllm_backends.grammars.rendering import render_regex

GAP = r"/ |\r?\n[ \t]{0,40}/"
"""White space in the layout of lines."""
MAX_RULE = 2_000
"""Length above which the rest of an object becomes a rule of its own."""


class _Layout(Struct, frozen=True):
    comma: str
    colon: str
    gap: str = ""
    """White space inside the braces."""


LAYOUTS = (_Layout('", "', '": "'), _Layout('","', '":"'), _Layout(f'"," {GAP}', '": "', GAP))
SCALARS = {"type": ["string", "number", "boolean", "null"]}


class JsonRules:
    """Adds the rules of one schema."""

    def __init__(self, rules: LarkRules, root: dict[str, Any]) -> None:
        self._rules = rules
        self._root = root
        self._references: dict[str, str] = {}
        """Names of the rules of definitions, by the references to them."""
        self._any = ""

    def start(self) -> str:
        """Return the name of the rule of the whole schema."""
        definitions = self._root.get("$defs", {})
        self._references = {f"#/$defs/{name}": self._rules.reserve() for name in definitions}
        for name, schema in definitions.items():
            self._rules.define(self._references[f"#/$defs/{name}"], self._value(schema))
        return self._value({keyword: each for keyword, each in self._root.items() if keyword != "$defs"})

    def _value(self, schema: dict[str, Any]) -> str:
        """Return the name of the rule of a schema."""
        match schema:
            case {"$ref": reference}:
                return self._references[reference]
            case {"anyOf": options}:
                return self._any_of(map(self._value, options))
            case {"enum": values}:
                return self._enum(values, _patterns(schema))
            case {"type": "object"}:
                return self._object(schema)
            case {"type": "array"}:
                return self._array(schema)
            case {"type": "string", "pattern": _} | {"type": "string", "allOf": _}:
                return self._patterned(schema)
            case {"type": _}:
                return self._leaf(schema)
        return self._any_value()

    def _any_of(self, options: Iterable[str]) -> str:
        return self._rules.add(" | ".join(dict.fromkeys(options)))

    def _any_value(self) -> str:
        if not self._any:
            self._any = self._rules.reserve()
            options = (SCALARS, {"type": "array"}, {"type": "object", "additionalProperties": {}})
            types = (self._leaf(SCALARS), *(self._value(each) for each in options[1:]))
            self._rules.define(self._any, " | ".join(types))
        return self._any

    def _leaf(self, schema: dict[str, Any]) -> str:
        return self._rules.add(f"%json {json.dumps(schema)}")

    def _enum(self, values: list[Any], patterns: list[str]) -> str:
        scalars = [each for each in values if not isinstance(each, dict | list)]
        options = []
        if patterns and (texts := [each for each in scalars if isinstance(each, str)]):
            scalars = [each for each in scalars if not isinstance(each, str)]
            options.append(self._string(_one_of(texts), *patterns))
        if scalars:
            options.append(self._leaf({"enum": scalars}))
        options += [self._value(_constant(each)) for each in values if isinstance(each, dict | list)]
        return self._any_of(options)

    def _patterned(self, schema: dict[str, Any]) -> str:
        try:
            return self._string(_quoted(ANY_TEXT), *_patterns(schema), *_length(schema))
        except RequestError:  # the library supports more, such as Unicode properties
            return self._leaf(schema)

    def _array(self, schema: dict[str, Any]) -> str:
        prefix = [self._value(each) for each in schema.get("prefixItems", ())]
        items = schema.get("items", {})
        item = None if items is False else self._value(items)
        lower, upper = schema.get("minItems", 0), schema.get("maxItems")
        return self._container(
            "[]",
            lower == 0,
            lambda layout: self._elements(layout.comma, prefix, item, lower, upper),
        )

    def _elements(
        self, comma: str, prefix: list[str], item: str | None, lower: int, upper: int | None
    ) -> str | None:
        """Return the expression of one or more elements, or ``None`` if there can't be any."""
        if not prefix and item is not None:
            prefix = [item]
        if not prefix or upper == 0:
            return None
        count = len(prefix)
        rest = EMPTY
        if item is not None:
            more = None if upper is None else max(upper - count, 0)
            rest = repeated(f"{comma} {item}", max(lower - count, 0), more)
        for index in range(count - 1, 0, -1):
            rest = sequence(comma, prefix[index], rest)
            if index >= lower:
                rest = f"{self._rules.add(rest)}?"
        return sequence(prefix[0], rest)

    def _object(self, schema: dict[str, Any]) -> str:
        required, properties = schema.get("required", ()), schema.get("properties", {})
        members = _Members(
            [
                _Property(_json(_json(name)), self._value(value), name in required)
                for name, each in properties.items()
                if (value := _with_patterns(name, each, schema.get("patternProperties", {}))) is not False
            ],
            self._others(schema),
            schema.get("minProperties", 0),
            schema.get("maxProperties"),
        )
        may_be_empty = not required and not members.lower
        return self._container("{}", may_be_empty, lambda layout: members.expression(self._rules, layout))

    def _container(self, braces: str, may_be_empty: bool, inside: Callable[[_Layout], str | None]) -> str:
        """Return the name of the rule of an object or array, whose inside has one or more members."""
        options = [f'"{braces}"'] if may_be_empty else []
        for layout in LAYOUTS:
            if inner := inside(layout):
                whole = sequence(f'"{braces[0]}"', layout.gap, f"({inner})", layout.gap, f'"{braces[1]}"')
                options.append(whole)
        return self._any_of(options)

    def _others(self, schema: dict[str, Any]) -> list[tuple[str, str]]:
        """Return the terminals of names that are not listed, and the rules of their values.

        A name that matches several patterns is in none, since its value would have to satisfy all of them.
        """
        listed = [f"~{_one_of(schema['properties'])}"] if schema.get("properties") else []
        values = {_pattern(each): value for each, value in schema.get("patternProperties", {}).items()}
        found = []
        for pattern, value in values.items():
            if value is not False:
                others = [f"~{each}" for each in values if each != pattern]
                found.append((self._string(pattern, *listed, *others), self._value(value)))
        value = schema.get("additionalProperties", False)
        if value is not False:
            others = [f"~{each}" for each in values]
            found.append((self._string(_quoted(ANY_TEXT), *listed, *others), self._value(value)))
        return found

    def _string(self, *expressions: str) -> str:
        """Return the name of the terminal of strings that match all of these expressions."""
        return self._rules.add_terminal(" & ".join(expressions))


class _Property(Struct, frozen=True):
    key: str
    value: str
    required: bool


class _Members(Struct, frozen=True):
    """The members of an object, of which there is at least one."""

    properties: list[_Property]
    others: list[tuple[str, str]]
    """Names and values of the properties that are not listed."""
    lower: int
    """Limits of their number. If there are any, all listed properties are required."""
    upper: int | None

    def expression(self, rules: LarkRules, layout: _Layout) -> str | None:
        """Return the expression, or ``None`` if no members are allowed. It is built from the end."""
        first, rest = self._more(layout, is_first=True), self._more(layout, is_first=False) or EMPTY
        for each in reversed(self.properties):
            member = sequence(each.key, layout.colon, each.value, rest)
            after = sequence(layout.comma, member)
            if each.required:
                first, rest = member, after
            else:
                first = member if first is None else rules.add(f"{member} | {first}")
                rest = rules.add(f"{after} | {rest}")
            first, rest = _shortened(rules, first), _shortened(rules, rest)
        return first

    def _more(self, layout: _Layout, *, is_first: bool) -> str | None:
        """Return the expression of the properties that are not listed, or ``None`` if there are none."""
        upper = None if self.upper is None else max(self.upper - len(self.properties), 0)
        if not self.others or upper == 0:
            return None
        member = f"({' | '.join(sequence(name, layout.colon, value) for name, value in self.others)})"
        more = sequence(layout.comma, member)
        lower = max(self.lower - len(self.properties), 0)
        if not is_first:
            return repeated(more, lower, upper)
        return sequence(member, repeated(more, max(lower - 1, 0), None if upper is None else upper - 1))


def _with_patterns(name: str, schema: Any, patterns: dict[str, Any]) -> Any:
    """Return the schema of a property, to which those of the patterns that its name matches apply, too."""
    found = [
        each
        for pattern, each in patterns.items()
        if each not in ({}, schema) and matches(parse_pattern(pattern, full_match=False), name)
    ]
    if schema is False or False in found:
        return False
    if schema == {} and len(found) == 1:
        return found[0]
    if found:
        raise RequestError(
            f"unsupported JSON schema at 'patternProperties': the property {name!r} has a schema of its own",
            code="unsupported_schema",
        )
    return schema


def _shortened(rules: LarkRules, expression: str) -> str:
    return expression if len(expression) <= MAX_RULE else rules.add(expression)


def _patterns(schema: dict[str, Any]) -> list[str]:
    """Return the expressions that a string must match."""
    return [
        _expression(each) for each in (schema, *schema.get("allOf", ())) if each.keys() & {"pattern", "not"}
    ]


def _expression(schema: dict[str, Any]) -> str:
    match schema:
        case {"not": {"pattern": pattern}}:
            return f"~{_pattern(pattern)}"
        case {"not": {"enum": texts}}:
            return f"~{_one_of(texts)}"
    return _pattern(schema["pattern"])


def _length(schema: dict[str, Any]) -> list[str]:
    if "minLength" not in schema:
        return []
    return [_quoted(RegexRepeat(CharClass(ANY_CHARACTER), schema["minLength"], schema.get("maxLength")))]


def _pattern(pattern: str) -> str:
    return _quoted(parse_pattern(pattern, full_match=False))


def _quoted(pattern: Node) -> str:
    """Return the expression of strings in JSON whose text matches a pattern."""
    return _regex(f'"{render_regex(pattern, in_json=True)}"')


def _one_of(texts: Iterable[str]) -> str:
    return _regex("|".join(re.escape(_json(each)) for each in texts))


def _json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _regex(pattern: str) -> str:
    return "/{}/".format(pattern.replace("/", "\\/"))


def _constant(value: dict[str, Any] | list[Any]) -> dict[str, Any]:
    """Return the schema of one object or array, whose white space is not constant."""
    if isinstance(value, list):
        items = [{"enum": [each]} for each in value]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    properties = {name: {"enum": [each]} for name, each in value.items()}
    return {"type": "object", "properties": properties, "required": list(value)}
