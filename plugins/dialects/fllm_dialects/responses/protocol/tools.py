"""Tools that a request declares, and the choice among them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

ToolName = Annotated[str, Meta(min_length=1, max_length=256)]


class CustomFormat(Struct, frozen=True, kw_only=True):
    """What the input of a custom tool looks like: any ``text``, or what a ``grammar`` allows."""

    type: Literal["text", "grammar"] = "text"
    syntax: Literal["lark", "regex"] | UnsetType | None = UNSET
    definition: str | UnsetType | None = UNSET


class ToolParam(Struct, frozen=True, kw_only=True):
    """A tool: a ``function``, a ``custom`` tool, or a ``namespace`` of them."""

    type: str
    name: ToolName | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    parameters: dict[str, Any] | UnsetType | None = UNSET
    """JSON Schema of the arguments of a function."""
    strict: bool | UnsetType | None = UNSET
    """If true, the arguments of a call match the schema even with ``tool_choice`` "auto"."""
    format: CustomFormat | UnsetType | None = UNSET
    """The input of a custom tool."""
    tools: list[ToolParam] | UnsetType | None = UNSET
    """The tools of a namespace."""
    external_web_access: bool | UnsetType | None = UNSET
    """Of ``web_search``."""


class ToolRef(Struct, frozen=True, kw_only=True):
    """A tool that ``allowed_tools`` names."""

    type: str
    name: str | UnsetType | None = UNSET
    namespace: str | UnsetType | None = UNSET


class ToolChoiceParam(Struct, frozen=True, kw_only=True):
    """A ``tool_choice`` that forces one tool, or restricts the calls to some tools."""

    type: str
    """``function``, ``custom`` or ``allowed_tools``."""
    name: str | UnsetType | None = UNSET
    namespace: str | UnsetType | None = UNSET
    mode: Literal["auto", "required"] | UnsetType | None = UNSET
    tools: list[ToolRef] | UnsetType | None = UNSET


ToolChoice: TypeAlias = Literal["none", "auto", "required"] | ToolChoiceParam
