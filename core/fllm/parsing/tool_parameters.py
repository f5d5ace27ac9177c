"""The parameters that the schema of a tool declares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from fllm.values import Tool

_MAX_REFERENCES = 16
"""Maximum number of references that lead to one another; a schema after more of them counts as empty."""

_TYPE_ALIASES = {
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

_ROOT = "parameters"
"""The name of the definition that holds the schema of all parameters."""

_EMPTY: Mapping[str, Any] = MappingProxyType({})


class Parameters:
    """The parameters of one tool, by name."""

    def __init__(self, root: Mapping[str, Any], *, lenient: bool = False) -> None:
        self.root = root
        self.lenient = lenient
        """Whether keywords that can't be enforced are ignored."""
        outer = self.resolved(root)
        properties, required = outer.get("properties"), outer.get("required")
        self.schemas: Mapping[str, Any] = properties if isinstance(properties, Mapping) else {}
        self.open = "properties" not in outer
        """Whether the schema declares no parameters at all: then any are allowed."""
        names = {key for key in required if isinstance(key, str)} if isinstance(required, list) else set()
        self.required = [key for key in self.schemas if key in names]
        # Each entry holds its schema, so that no other object can get the same ID.
        self._types: dict[int, tuple[Any, frozenset[str]]] = {}

    @classmethod
    def of(cls, name: str, tools: Iterable[Tool]) -> Parameters:
        """Return the parameters of the tool ``name``; open ones if there is no such tool."""
        return cls(next((tool.parameters for tool in tools if tool.name == name), {}))

    def resolved(self, schema: Any) -> Mapping[str, Any]:
        """Follow references within the schema of the tool; return an empty schema if that fails."""
        for _ in range(_MAX_REFERENCES):
            if not isinstance(schema, Mapping):
                return _EMPTY
            if "$ref" not in schema:
                return schema
            schema = self._find(schema["$ref"])
        return _EMPTY

    def types(self, schema: Any) -> frozenset[str]:
        """Return the JSON types that a schema allows; none if it does not restrict them."""
        if id(schema) not in self._types:
            self._types[id(schema)] = schema, self._find_types(schema)
        return self._types[id(schema)][1]

    def _find_types(self, schema: Any) -> frozenset[str]:
        types: set[str] = set()
        seen: set[int] = set()
        queue = [schema]
        while queue:
            one = self.resolved(queue.pop())
            if id(one) not in seen:
                seen.add(id(one))
                declared = _declared_types(one)
                types |= declared
                queue += [] if declared else alternatives(one)
        return frozenset(types)

    def standalone(self, schema: Any) -> dict[str, Any]:
        """Return the schema of one parameter together with the definitions that it may refer to."""
        if self._refers_to_parameters:
            root = _with_references_to(_ROOT, self.root)
            return {**_with_references_to(_ROOT, self.resolved(schema)), "$defs": {_ROOT: root}}
        definitions = {key: self.root[key] for key in ("$defs", "definitions") if key in self.root}
        return definitions | dict(self.resolved(schema))

    @cached_property
    def _refers_to_parameters(self) -> bool:
        """Whether the schema refers to a part of itself that is not a definition."""
        return any(not each.startswith(("#/$defs/", "#/definitions/")) for each in _references(self.root))

    def _find(self, reference: object) -> Any:
        document, *steps = str(reference).split("/")
        target: Any = self.root if document == "#" else None
        for step in steps:
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, Mapping) else None
        return target


def _references(schema: Any) -> Iterator[str]:
    """Yield the references within a schema."""
    if isinstance(schema, Mapping) and isinstance(reference := schema.get("$ref"), str):
        yield reference
    children = schema.values() if isinstance(schema, Mapping) else schema if isinstance(schema, list) else ()
    for each in children:
        yield from _references(each)


def _with_references_to(name: str, schema: Any) -> Any:
    """Return a schema in which references to the root refer to the definition ``name``."""
    if isinstance(schema, list):
        return [_with_references_to(name, each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved = {key: _with_references_to(name, each) for key, each in schema.items()}
    if isinstance(reference := schema.get("$ref"), str) and (reference == "#" or reference.startswith("#/")):
        moved["$ref"] = f"#/$defs/{name}{reference[1:]}"
    return moved


class ToolSchemas:
    """The parameters of all tools of a request, which are read when the first call needs them."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = tools
        self._parameters: dict[str, Parameters] = {}

    def of(self, name: str) -> Parameters:
        """Return the parameters of the tool ``name``; open ones if there is no such tool."""
        if not self._parameters:
            # Of two tools with the same name, the first one counts.
            self._parameters = {tool.name: Parameters(tool.parameters) for tool in reversed([*self._tools])}
        return self._parameters.get(name, _UNKNOWN)


_UNKNOWN = Parameters({})


def choices(schema: Mapping[str, Any]) -> list[Any]:
    """Return the values that a schema lists with ``enum`` or ``const``, if any."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return listed if isinstance(listed, list) else []


def json_type(value: Any) -> str:
    """Return the JSON type of a decoded value."""
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


def _declared_types(schema: Mapping[str, Any]) -> set[str]:
    """Return the types that a schema itself declares, without those of its alternatives."""
    declared = schema.get("type", [])
    names = declared if isinstance(declared, list) else [declared]
    types = {_TYPE_ALIASES.get(str(one), str(one)) for one in names}
    types = types or {json_type(value) for value in choices(schema)}
    if not types and "properties" in schema:
        types = {"object"}
    return types | {"null"} if types and schema.get("nullable") is True else types


def alternatives(schema: Mapping[str, Any]) -> list[Any]:
    """Return the schemas under ``anyOf``, ``oneOf`` and ``allOf``."""
    lists = [schema.get(key) for key in ("anyOf", "oneOf", "allOf")]
    return [option for options in lists if isinstance(options, list) for option in options]
