"""How the arguments of a tool may be written, as constraints: one form for each kind of notation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from fllm.constraints import AnyOf, Concat, Constraint, ConstString, JsonSchema, Regex, Repeat, TextUntil
from fllm.parsing.tag_reader import TagFormat, taggable
from fllm.parsing.tool_parameters import Parameters, alternatives, choices
from fllm.structured_output.json_schema import normalize_schema
from fllm.values import Tool

Value = Callable[[Any, Parameters], Constraint]
"""The language of one argument, by its schema."""

Form = Callable[[Tool], Constraint]
"""The language of all arguments of a tool."""


def tagged(tags: TagFormat, gap: str = "", padding: str | None = None) -> Form:
    """A tag for each argument, whose value is plain text; ``gap`` is what the model writes between tags."""
    inner = tags.padding if padding is None else padding
    # What else would end a value, or break the call, or begin another argument.
    free = TextUntil(tags.after_value, (tags.opening, *tags.cut, tags.before_key))

    def argument(key: Constraint, value: Constraint) -> Constraint:
        begin = gap.join(tags.after_key) + inner
        return Concat((ConstString(tags.before_key), key, ConstString(begin), value, ConstString(gap)))

    def of(key: str, schema: Any, parameters: Parameters) -> Constraint:
        end = ConstString(inner + tags.after_value)
        if listed := plain_choices(schema, parameters):
            return argument(ConstString(key), Concat((listed, end)))
        if limited := plain_text(schema, parameters):
            return argument(ConstString(key), Concat((limited, end)))
        if may_be_text(schema, parameters):
            # The padding is the model's habit; the value must not have the tag in it.
            return argument(ConstString(key), free)
        return argument(ConstString(key), Concat((json_value(schema, parameters), end)))

    def form(tool: Tool) -> Constraint:
        parameters = Parameters(tool.parameters)
        if parameters.open:
            return Repeat(item=argument(Regex(_WORD), free), least=0)
        parts = {
            key: of(key, schema, parameters) for key, schema in parameters.schemas.items() if taggable(key)
        }
        return Concat(
            tuple(part if key in parameters.required else perhaps(part) for key, part in parts.items())
        )

    return form


def named(assign: str, separator: str, value: Value) -> Form:
    """Names and values with a separator between them; those that are required come first."""

    def argument(key: Constraint, schema: Any, parameters: Parameters) -> Constraint:
        return Concat((key, ConstString(assign), value(schema, parameters)))

    def form(tool: Tool) -> Constraint:
        parameters = Parameters(tool.parameters)
        if parameters.open:
            return Repeat(item=argument(Regex(_WORD), {}, parameters), separator=separator, least=0)
        parts = {
            key: argument(ConstString(key), schema, parameters)
            for key, schema in parameters.schemas.items()
            if re.fullmatch(_WORD, key)
        }
        first = [parts.pop(key) for key in parameters.required if key in parts]
        return separated(first, list(parts.values()), separator)

    return form


def separated(required: Sequence[Constraint], optional: Sequence[Constraint], separator: str) -> Constraint:
    """All of the first and any of the others, in this order, with separators between them."""
    more = [Concat((ConstString(separator), part)) for part in (*required, *optional)]
    if required:
        count = len(required)
        return Concat((required[0], *more[1:count], *map(perhaps, more[count:])))
    beginnings = [Concat((part, *map(perhaps, more[i:]))) for i, part in enumerate(optional, start=1)]
    return AnyOf((*beginnings, ConstString("")))


def perhaps(part: Constraint) -> Constraint:
    """That, or nothing."""
    return Repeat(item=part, least=0, most=1)


def json_value(schema: Any, parameters: Parameters) -> Constraint:
    """The value as JSON."""
    return JsonSchema(msgspec.json.encode(parameters.alone(schema)).decode())


def python_value(schema: Any, parameters: Parameters) -> Constraint:
    """The value as Python writes it, but for what is within lists and dictionaries."""
    kinds = parameters.kinds(schema)
    if kinds == {"boolean"} and not choices(parameters.resolved(schema)):
        return AnyOf((ConstString("True"), ConstString("False")))
    if kinds == {"null"}:
        return ConstString("None")
    if kinds == {"string"} and is_free(schema, parameters):
        return AnyOf((Regex(PYTHON_STRING), json_value(schema, parameters)))
    return json_value(schema, parameters)


_WORD = r"[\w$][\w.$-]*"
"""A key that can be written in any notation."""

PYTHON_STRING = r"'([^'\\\x00-\x1f]|\\['\\nt])*'"
"""A string in single quotes."""

_ALTERNATIVES = re.compile(r"\^[^()|^]*+\||\|[^()|$]*+\$")
"""An anchor that holds for one of several ways only."""

_ABOUT_VALUES = frozenset(("pattern", "format", "minLength", "maxLength", "enum", "const", "allOf", "not"))


def is_free(schema: Any, parameters: Parameters) -> bool:
    """Whether a string may be any."""
    return any(
        may_be_text(one, parameters) and not _ABOUT_VALUES & one.keys()
        for one in _options(schema, parameters)
    )


def _options(schema: Any, parameters: Parameters) -> Iterable[Mapping[str, Any]]:
    """The schemas of which one must hold; one that says something of values itself is taken as a whole."""
    seen: set[int] = set()
    waiting = [schema]
    while waiting:
        one = parameters.resolved(waiting.pop(0))
        if id(one) not in seen:
            seen.add(id(one))
            inner = [] if _ABOUT_VALUES & one.keys() else alternatives(one)
            waiting += inner
            if not inner:
                yield one


def may_be_text(schema: Any, parameters: Parameters) -> bool:
    """Whether the plain text of a value is read as a string."""
    kinds = parameters.kinds(schema)
    return not kinds or "string" in kinds


def plain_text(schema: Any, parameters: Parameters) -> Constraint | None:
    """The plain text of what may be a string, but not any; nothing for all else.

    Of other types it may only be null: the text of a number would be read as a string. Where a schema leaves
    a character open, it is none that begins a tag.
    """
    if not may_be_text(schema, parameters) or is_free(schema, parameters):
        return None
    text = msgspec.json.encode(parameters.alone(schema)).decode()
    simple = Parameters(msgspec.json.decode(normalize_schema(text), type=dict[str, Any]))
    if is_free(simple.root, simple):
        return None
    texts = tuple(each for one in _options(simple.root, simple) for each in _plain_option(one))
    return AnyOf(texts) if texts else json_value(schema, parameters)


def _plain_option(simple: Mapping[str, Any]) -> Iterable[Constraint]:
    match simple:
        case {"enum": list(values)}:
            for value in values:
                if value is None or isinstance(value, str):
                    yield ConstString("null" if value is None else value)
        case {"pattern": str(pattern)}:
            yield Regex(_whole(pattern))
        case {"minLength": least}:
            yield Regex(f"[^<]{{{least},{simple.get('maxLength', '')}}}")
        case {"type": "null"}:
            yield ConstString("null")


def _whole(pattern: str) -> str:
    """The same pattern for a whole text: one that is not anchored may stand anywhere in it.

    Where anchors hold for one of several ways only, all have both.
    """
    if _ALTERNATIVES.search(pattern):
        return pattern
    begin = "" if pattern.startswith("^") else "[^<]*"
    end = "" if pattern.endswith("$") and not pattern.endswith(r"\$") else "[^<]*"
    inner = pattern if end else pattern.removesuffix("$")
    return f"{begin}({inner.removeprefix('^')}){end}"


def plain_choices(schema: Any, parameters: Parameters) -> Constraint | None:
    """The values that a schema lists, as plain text."""
    listed = choices(parameters.resolved(schema))
    texts = [each if isinstance(each, str) else msgspec.json.encode(each).decode() for each in listed]
    return AnyOf(tuple(map(ConstString, texts))) if texts else None
