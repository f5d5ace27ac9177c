"""The tool calls of MiniMax M3: nested tags, each of which follows a special token.

::

    ]<]minimax[>[<tool_call>
    ]<]minimax[>[<invoke name="get_weather">]<]minimax[>[<city>Tokyo]<]minimax[>[</city>]<]minimax[>[</invoke>
    ]<]minimax[>[</tool_call>

Members of objects are tags within the tag of the object, and the elements of lists are tags ``item``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from fllm.constraints import AnyOf, Concat, Constraint, ConstString, Repeat, TextUntil
from fllm.parsing import TagFormat, TaggedToolCallParser, ToolFormat
from fllm.parsing.argument_coercion import from_text
from fllm.parsing.argument_constraints import json_value, may_be_text, optional, plain_choices, plain_text
from fllm.parsing.argument_writer import ArgumentWriter, quoted
from fllm.parsing.body_scanner import MAX_NAME_LENGTH
from fllm.parsing.tag_scanner import taggable
from fllm.parsing.tool_parameters import Parameters, alternatives
from fllm.values import Tool

TOKEN = "]<]minimax[>["
MAX_NESTING = 128
"""Maximum number of levels of nesting; a deeper value is a string."""
MAX_DESCRIBED = 4
"""Levels of nesting that a constraint describes with tags. Deeper values are JSON, which is read as well."""

_TAG = re.compile(rf"{re.escape(TOKEN)}<(/?)([^<>]{{1,{MAX_NAME_LENGTH}}})>")
_ITEM = "item"
_TEXT = "$text"
"""Key of the text next to the members of an object, which the format allows but JSON does not."""


class _Element(Struct):
    key: str
    text: list[str] = []
    children: list[_Element] = []


def _arguments(tool: Tool) -> Constraint:
    """Return the constraint on all arguments of a tool."""
    parameters = Parameters(tool.parameters)
    if parameters.open:
        return ConstString("")
    return _members(parameters.schemas, parameters.required, parameters, 1)


def _members(
    schemas: Mapping[str, Any], required: Sequence[str], parameters: Parameters, depth: int
) -> Constraint:
    parts = {
        key: Concat((ConstString(f"{TOKEN}<{key}>"), _value(key, schema, parameters, depth)))
        for key, schema in schemas.items()
        if taggable(key)
    }
    return Concat(tuple(part if key in required else optional(part) for key, part in parts.items()))


def _value(key: str, schema: Any, parameters: Parameters, depth: int) -> Constraint:
    """Return the constraint on a value and its closing tag."""
    end = ConstString(f"{TOKEN}</{key}>")
    if text := plain_choices(schema, parameters) or plain_text(schema, parameters):
        return Concat((text, end))
    if may_be_text(schema, parameters):
        return TextUntil(end.text, (TOKEN,))
    types = parameters.types(schema)
    nested = tuple(_nested(types, schema, parameters, depth)) if depth < MAX_DESCRIBED else ()
    if not nested:
        return Concat((json_value(schema, parameters), end))
    scalars = tuple(json_value({"type": type_}, parameters) for type_ in sorted(types - {"array", "object"}))
    return Concat((AnyOf((*nested, *scalars)), end))


def _nested(types: frozenset[str], schema: Any, parameters: Parameters, depth: int) -> Iterable[Constraint]:
    """Yield the constraints on lists and objects that are written as tags."""
    if "array" in types and (items := _within(schema, "items", parameters)):
        item = _value(_ITEM, items, parameters, depth + 1)
        yield Repeat(item=Concat((ConstString(f"{TOKEN}<{_ITEM}>"), item)), min=0)
    members = _within(schema, "properties", parameters)
    if "object" in types and members and isinstance(members, Mapping):
        required = _within(schema, "required", parameters)
        yield _members(members, required if isinstance(required, list) else [], parameters, depth + 1)


class MiniMaxM3Parser(TaggedToolCallParser):
    """Parses one or more calls. The schema decides whether tags within a value are a list or an object."""

    tags = TagFormat(
        opening=f'{TOKEN}<invoke name="',
        after_name='">',
        before_key=f"{TOKEN}<",
        after_key=(">",),
        after_value=f"{TOKEN}</{{key}}>",
        end=f"{TOKEN}</invoke>",
        typed=True,
        special=True,
    )
    opening = (tags.opening,)
    section_markers = (f"{TOKEN}<tool_call>",)
    closing = (f"{TOKEN}</tool_call>",)
    visible_tokens = (TOKEN,)
    tool_format = ToolFormat(
        before=f"{TOKEN}<tool_call>\n",
        begin=tags.opening,
        middle='">',
        end=f"{tags.end}\n",
        after=f"{TOKEN}</tool_call>",
        trigger=f"{TOKEN}<tool_call>",
        arguments=_arguments,
    )

    def value_of(
        self,
        text: str,
        schema: Any,
        parameters: Parameters,
        *,
        marked: bool,  # noqa: ARG002  the format has no such marks
    ) -> str:
        """Return the JSON of a value, whose text may have tags."""
        element = _parse_element(text)
        return quoted(text) if element is None else _json(element, schema, parameters)


def _parse_element(text: str) -> _Element | None:
    """Return the value with its members or elements; ``None`` if its tags do not match."""
    stack, position = [_Element("")], 0
    for match in _TAG.finditer(text):
        stack[-1].text.append(text[position : match.start()])
        position = match.end()
        if not match[1]:
            stack.append(_Element(match[2]))
        elif len(stack) == 1 or stack[-1].key != match[2]:
            return None
        else:
            child = stack.pop()
            stack[-1].children.append(child)
        if len(stack) > MAX_NESTING:
            return None
    stack[-1].text.append(text[position:])
    return stack[0] if len(stack) == 1 else None


def _json(element: _Element, schema: Any, parameters: Parameters) -> str:
    types = parameters.types(schema)
    text = "".join(element.text)
    if not element.children:
        if text or "string" in types or not types & {"array", "object"}:
            return from_text(text, schema, parameters) if types else quoted(text)
        return "[]" if "array" in types else "{}"
    items = all(child.key == _ITEM for child in element.children)
    if items and ("array" in types or not types):
        inner = _within(schema, "items", parameters)
        return f"[{', '.join(_json(child, inner, parameters) for child in element.children)}]"
    return _object(element, text, _within(schema, "properties", parameters), parameters)


def _object(element: _Element, text: str, schemas: Any, parameters: Parameters) -> str:
    values: dict[str, list[str]] = {}
    for child in element.children:
        schema = schemas.get(child.key) if isinstance(schemas, Mapping) else None
        values.setdefault(child.key, []).append(_json(child, schema, parameters))
    members = [(key, each[0] if len(each) == 1 else f"[{', '.join(each)}]") for key, each in values.items()]
    if text.strip():
        key = _TEXT
        while key in values:
            key = f"${key}"
        members.append((key, quoted(text)))
    return ArgumentWriter.whole(members)


def _within(schema: Any, keyword: str, parameters: Parameters) -> Any:
    """Return what a schema, or the first of its alternatives that has it, says under a keyword."""
    outer = parameters.resolved(schema)
    for each in (outer, *map(parameters.resolved, alternatives(outer))):
        if keyword in each:
            return each[keyword]
    return None
