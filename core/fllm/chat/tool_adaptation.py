"""Adapt tools to what a chat template can express, found by rendering some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

Tool = Mapping[str, Any]
Tools = Sequence[Tool]
MAX_LEVELS = 64
"""Levels of a schema that are adapted; what is nested deeper stays as it is."""
_EXAMPLES = ("const", "default", "enum", "example", "examples")
"""Keywords with values that are not schemas."""


class ToolAdaptation(Struct, frozen=True):
    """A change of tools that some templates need to render them."""

    description: str
    adapt: Callable[[Tool], Tool]
    needed_for: Tool
    """A tool that these templates reject."""


def add_description(tool: Tool) -> Tool:
    """Return the tool with an empty description if it has none."""
    function = tool["function"]
    return {**tool, "function": {**function, "description": function.get("description") or ""}}


def choose_types(tool: Tool) -> Tool:
    """Return the tool with one type wherever its parameters have a list of types."""
    function = tool["function"]
    return {**tool, "function": {**function, "parameters": _with_one_type(function["parameters"])}}


def _with_one_type(schema: Any, levels: int = MAX_LEVELS) -> Any:
    if isinstance(schema, list) and levels:
        return [_with_one_type(each, levels - 1) for each in schema]
    if not isinstance(schema, dict) or not levels:
        return schema
    chosen = {
        key: value if key in _EXAMPLES else _with_one_type(value, levels - 1) for key, value in schema.items()
    }
    if isinstance(types := schema.get("type"), list):
        chosen["type"] = next((each for each in types if each != "null"), "null")
    return chosen


def _tool(**fields: Any) -> Tool:
    return {"type": "function", "function": {"name": "quoll", **fields}}


_NULLABLE = {"type": "object", "properties": {"in": {"type": ["string", "null"], "description": "civet"}}}
TOOL_ADAPTATIONS = (
    ToolAdaptation(
        "tools without a description get an empty one",
        add_description,
        _tool(parameters={"type": "object", "properties": {}}),
    ),
    ToolAdaptation(
        "of several types of a parameter, the first one is shown",
        choose_types,
        _tool(description="gaur", parameters=_NULLABLE),
    ),
)


def find_tool_adaptations(render: Callable[[Tools], str]) -> tuple[ToolAdaptation, ...]:
    """Return the changes without which a template does not render a tool; ``render`` returns a prompt."""
    return tuple(
        each
        for each in TOOL_ADAPTATIONS
        if "quoll" not in render([each.needed_for]) and "quoll" in render([each.adapt(each.needed_for)])
    )
