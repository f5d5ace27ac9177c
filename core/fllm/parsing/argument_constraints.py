"""The arguments of a tool as constraints, for each notation in which models write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from fllm.constraints import AnyOf, Concat, Constraint, ConstString, JsonSchema, Regex, Repeat, TextUntil
from fllm.parsing.tag_scanner import TagFormat, taggable
from fllm.parsing.tool_parameters import Parameters, alternatives, choices, json_type
from fllm.structured_output.json_schema import normalize_schema
from fllm.values import Tool

ValueGrammar = Callable[[Any, Parameters], Constraint]
"""Returns the constraint on one argument, given its schema."""

ArgumentGrammar = Callable[[Tool], Constraint]
"""Returns the constraint on all arguments of a tool."""


def tagged_arguments(tags: TagFormat, gap: str = "", padding: str | None = None) -> ArgumentGrammar:
    """Return the grammar of arguments that have a tag each and whose values are plain text.

    ``gap`` is the text that the model writes between tags. ``padding``, by default that of ``tags``, is the
    text that it writes on either side of a value.
    """
    inner = tags.padding if padding is None else padding
    # The other texts would break the call, end the value or begin another argument.
    free = TextUntil(tags.after_value, (tags.opening, *tags.cut, tags.before_key))

    def argument(key: Constraint, value: Constraint, type_: str = "string") -> Constraint:
        begin = gap.join(tags.after_key) + tags.attribute(type_) + tags.tag_end + inner
        return Concat((ConstString(tags.before_key), key, ConstString(begin), value, ConstString(gap)))

    def declared_argument(key: str, schema: Any, parameters: Parameters) -> Constraint:
        end = ConstString(inner + tags.after_value)
        if listed := plain_choices(schema, parameters):
            value: Constraint = Concat((listed, end))
        elif limited := plain_text(schema, parameters):
            value = Concat((limited, end))
        elif may_be_text(schema, parameters):
            # The value may begin and end with the padding, but cannot contain the closing tag.
            value = free
        else:
            value = Concat((json_value(schema, parameters), end))
        types = parameters.types(schema) or {"string"}
        if not tags.type_attributes or types == {"string"}:
            return argument(ConstString(key), value)
        if listed:
            return AnyOf(
                tuple(
                    argument(ConstString(key), Concat((_plain_choice(each), end)), json_type(each))
                    for each in choices(parameters.resolved(schema))
                )
            )
        json = Concat((json_value(schema, parameters), end))
        texts = [argument(ConstString(key), value)] if "string" in types else []
        marks = {tags.attribute(type_): type_ for type_ in sorted(types - {"string"})}
        return AnyOf((*texts, *(argument(ConstString(key), json, type_) for type_ in marks.values())))

    def grammar(tool: Tool) -> Constraint:
        parameters = Parameters(tool.parameters, lenient=tool.lenient)
        if parameters.open:
            return Repeat(item=argument(Regex(_WORD), free), min=0)
        parts = {
            key: declared_argument(key, schema, parameters)
            for key, schema in parameters.schemas.items()
            if taggable(key)
        }
        return Concat(
            tuple(part if key in parameters.required else optional(part) for key, part in parts.items())
        )

    return grammar


def named_arguments(assign: str, separator: str, value: ValueGrammar) -> ArgumentGrammar:
    """Return the grammar of arguments that are written as names and values; the required ones come first."""

    def argument(key: Constraint, schema: Any, parameters: Parameters) -> Constraint:
        return Concat((key, ConstString(assign), value(schema, parameters)))

    def grammar(tool: Tool) -> Constraint:
        parameters = Parameters(tool.parameters, lenient=tool.lenient)
        if parameters.open:
            return Repeat(item=argument(Regex(_WORD), {}, parameters), separator=separator, min=0)
        parts = {
            key: argument(ConstString(key), schema, parameters)
            for key, schema in parameters.schemas.items()
            if re.fullmatch(_WORD, key)
        }
        required = [parts.pop(key) for key in parameters.required if key in parts]
        return join_parts(required, list(parts.values()), separator)

    return grammar


def join_parts(required: Sequence[Constraint], others: Sequence[Constraint], separator: str) -> Constraint:
    """Return all required and any of the other parts, in this order, with separators between them."""
    more = [Concat((ConstString(separator), part)) for part in (*required, *others)]
    if required:
        count = len(required)
        return Concat((required[0], *more[1:count], *map(optional, more[count:])))
    beginnings = [Concat((part, *map(optional, more[i:]))) for i, part in enumerate(others, start=1)]
    return AnyOf((*beginnings, ConstString("")))


def optional(part: Constraint) -> Constraint:
    """Return a constraint that allows ``part`` or nothing."""
    return Repeat(item=part, min=0, max=1)


def json_value(schema: Any, parameters: Parameters) -> Constraint:
    """Return the constraint on a value that is written as JSON."""
    return JsonSchema(msgspec.json.encode(parameters.standalone(schema)).decode(), parameters.lenient)


def python_value(schema: Any, parameters: Parameters) -> Constraint:
    """Return the constraint on a value in Python's notation; values in lists and dictionaries are JSON."""
    types = parameters.types(schema)
    if types == {"boolean"} and not choices(parameters.resolved(schema)):
        return AnyOf((ConstString("True"), ConstString("False")))
    if types == {"null"}:
        return ConstString("None")
    if types == {"string"} and is_free(schema, parameters):
        return AnyOf((Regex(_PYTHON_STRING), json_value(schema, parameters)))
    return json_value(schema, parameters)


_WORD = r"[\w$][\w.$-]*"
"""A key that every notation can hold."""

_PYTHON_STRING = r"'([^'\\\x00-\x1f]|\\['\\nt])*'"
"""A string in single quotes."""

_PARTLY_ANCHORED = re.compile(r"\^[^()|^]*+\||\|[^()|$]*+\$")
"""A pattern in which an anchor applies to one of several alternatives only."""

_VALUE_KEYWORDS = frozenset(("pattern", "format", "minLength", "maxLength", "enum", "const", "allOf", "not"))


def is_free(schema: Any, parameters: Parameters) -> bool:
    """Return whether any string is allowed."""
    return any(
        may_be_text(one, parameters) and not _VALUE_KEYWORDS & one.keys()
        for one in _options(schema, parameters)
    )


def _options(schema: Any, parameters: Parameters) -> Iterable[Mapping[str, Any]]:
    """Yield the alternatives of a schema; one that also restricts values itself is a single alternative."""
    seen: set[int] = set()
    queue = [schema]
    while queue:
        one = parameters.resolved(queue.pop(0))
        if id(one) not in seen:
            seen.add(id(one))
            inner = [] if _VALUE_KEYWORDS & one.keys() else alternatives(one)
            queue += inner
            if not inner:
                yield one


def may_be_text(schema: Any, parameters: Parameters) -> bool:
    """Return whether the plain text of a value is read as a string."""
    types = parameters.types(schema)
    return not types or "string" in types


def plain_text(schema: Any, parameters: Parameters) -> Constraint | None:
    """Return the constraint on a value that may be a string, but not any string; ``None`` for other schemas.

    Among the other types only null is allowed, since the text of a number would be read as a string. Where
    the schema allows any character, the constraint excludes the one that begins a tag.
    """
    if not may_be_text(schema, parameters) or is_free(schema, parameters):
        return None
    text = msgspec.json.encode(parameters.standalone(schema)).decode()
    normalized = normalize_schema(text, lenient=parameters.lenient)
    simple = Parameters(msgspec.json.decode(normalized, type=dict[str, Any]))
    if is_free(simple.root, simple):
        return None
    texts = tuple(each for one in _options(simple.root, simple) for each in _plain_alternative(one))
    return AnyOf(texts) if texts else json_value(schema, parameters)


def _plain_alternative(simple: Mapping[str, Any]) -> Iterable[Constraint]:
    match simple:
        case {"enum": list(values)}:
            for value in values:
                if value is None or isinstance(value, str):
                    yield ConstString("null" if value is None else value)
        case {"pattern": str(pattern)}:
            yield Regex(_full_match(pattern))
        case {"minLength": min_length}:
            yield Regex(f"[^<]{{{min_length},{simple.get('maxLength', '')}}}")
        case {"allOf": _}:  # only texts that are excluded
            yield Regex("[^<]*")
        case {"type": "null"}:
            yield ConstString("null")


def _full_match(pattern: str) -> str:
    """Return the pattern of all texts in which ``pattern``, if it is not anchored, matches anywhere.

    Where an anchor applies to one of several alternatives only, all of them are anchored at both ends.
    """
    if _PARTLY_ANCHORED.search(pattern):
        return pattern
    begin = "" if pattern.startswith("^") else "[^<]*"
    end = "" if pattern.endswith("$") and not pattern.endswith(r"\$") else "[^<]*"
    inner = pattern if end else pattern.removesuffix("$")
    return f"{begin}({inner.removeprefix('^')}){end}"


def plain_choices(schema: Any, parameters: Parameters) -> Constraint | None:
    """Return the constraint to the values that a schema lists, as plain text; ``None`` if it lists none."""
    listed = choices(parameters.resolved(schema))
    return AnyOf(tuple(map(_plain_choice, listed))) if listed else None


def _plain_choice(choice: Any) -> ConstString:
    return ConstString(choice if isinstance(choice, str) else msgspec.json.encode(choice).decode())
