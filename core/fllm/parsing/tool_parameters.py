"""What the schema of a tool says of each of its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from fllm.values import Tool

_LONGEST_CHAIN = 16
"""References that lead to references; further on, a schema says nothing."""

_ALIASES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "dict": "object",
    "list": "array",
    "tuple": "array",
}
"""What people write for the types of JSON Schema."""


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Parameters:
    """The parameters of a tool, by name; none, where the request has no such tool."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        outer = self.resolved(root)
        properties, required = outer.get("properties"), outer.get("required")
        self.schemas: Mapping[str, Any] = properties if isinstance(properties, Mapping) else {}
        self.open = "properties" not in outer
        """Nothing is said of them: there may be any."""
        named = {key for key in required if isinstance(key, str)} if isinstance(required, list) else set()
        self.required = [key for key in self.schemas if key in named]
        self._kinds: dict[int, tuple[Any, frozenset[str]]] = {}  # with the schema, lest another gets its id

    @classmethod
    def of(cls, name: str, tools: Iterable[Tool]) -> Parameters:
        """Those of the tool of this name."""
        return cls(next((tool.parameters for tool in tools if tool.name == name), {}))

    def resolved(self, schema: Any) -> Mapping[str, Any]:
        """The schema that a reference within the tool's own leads to."""
        for _ in range(_LONGEST_CHAIN):
            if not isinstance(schema, Mapping):
                return _NOTHING
            if "$ref" not in schema:
                return schema
            schema = self._at(schema["$ref"])
        return _NOTHING

    def kinds(self, schema: Any) -> frozenset[str]:
        """The types of JSON that a schema allows, as far as it says so; nothing, where it doesn't."""
        if id(schema) not in self._kinds:
            self._kinds[id(schema)] = schema, self._find_kinds(schema)
        return self._kinds[id(schema)][1]

    def _find_kinds(self, schema: Any) -> frozenset[str]:
        found: set[str] = set()
        seen: set[int] = set()
        waiting = [schema]
        while waiting:
            one = self.resolved(waiting.pop())
            if id(one) not in seen:
                seen.add(id(one))
                said = _said(one)
                found |= said
                waiting += [] if said else alternatives(one)
        return frozenset(found)

    def alone(self, schema: Any) -> dict[str, Any]:
        """The schema of one parameter as one that stands by itself: what it refers to comes along."""
        taken = {key: self.root[key] for key in ("$defs", "definitions") if key in self.root}
        return taken | dict(self.resolved(schema))

    def _at(self, reference: object) -> Any:
        document, *steps = str(reference).split("/")
        place: Any = self.root if document == "#" else None
        for step in steps:
            key = step.replace("~1", "/").replace("~0", "~")
            place = place.get(key) if isinstance(place, Mapping) else None
        return place


class ToolSchemas:
    """The parameters of a request's tools, which are looked at once, when the first call comes."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = tools
        self._known: dict[str, Parameters] = {}

    def of(self, name: str) -> Parameters:
        """Those of the tool of this name."""
        if not self._known:
            # Of two tools of one name, the first counts.
            self._known = {tool.name: Parameters(tool.parameters) for tool in reversed([*self._tools])}
        return self._known.get(name, _UNKNOWN)


_UNKNOWN = Parameters({})


def choices(schema: Mapping[str, Any]) -> list[Any]:
    """The values that a schema lists, if it does."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return listed if isinstance(listed, list) else []


def kind_of(value: Any) -> str:
    """The type of JSON that a decoded value has."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _said(schema: Mapping[str, Any]) -> set[str]:
    """The types that a schema itself names."""
    named = schema.get("type", [])
    types = {_ALIASES.get(str(one), str(one)) for one in (named if isinstance(named, list) else [named])}
    types = types or {kind_of(value) for value in choices(schema)}
    if not types and "properties" in schema:
        types = {"object"}
    return types | {"null"} if types and schema.get("nullable") is True else types


def alternatives(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas that one is made of."""
    lists = [schema.get(key) for key in ("anyOf", "oneOf", "allOf")]
    return [option for options in lists if isinstance(options, list) for option in options]
