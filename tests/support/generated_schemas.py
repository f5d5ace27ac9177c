"""Schemas as generators write them: some are generated here, the others in ``generated_schemas.json``.

The file has what these versions write: Zod 4.6, zod-to-json-schema 3, TypeBox 0.34, Valibot 1, ArkType 2.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import ipaddress
import json
import pathlib
import uuid
from typing import Annotated, Any, Literal, NamedTuple

import jsonschema_rs
import msgspec
import pydantic
import typing_extensions
from pydantic import Field

FROM_TYPESCRIPT: dict[str, Any] = json.loads(
    pathlib.Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    name: str | None = None


class Node(pydantic.BaseModel):
    value: int
    children: list[Node] = []


class Leaf(pydantic.BaseModel):
    kind: Literal["leaf"] = "leaf"
    value: int


class Branch(pydantic.BaseModel):
    kind: Literal["branch"] = "branch"
    parts: list[Annotated[Branch | Leaf, Field(discriminator="kind")]] = []


class Point(NamedTuple):
    x: int
    y: int = 0


class Place(typing_extensions.TypedDict):
    city: str


PYDANTIC_TYPES: dict[str, Any] = {
    "HttpUrl": pydantic.HttpUrl,
    "AnyUrl": pydantic.AnyUrl,
    "PostgresDsn": pydantic.PostgresDsn,
    "Decimal": decimal.Decimal,
    "limited Decimal": Annotated[decimal.Decimal, Field(max_digits=6, decimal_places=2, gt=0)],
    "UUID4": pydantic.UUID4,
    "UUID": uuid.UUID,
    "SecretStr": pydantic.SecretStr,
    "path": pathlib.Path,
    "FilePath": pydantic.FilePath,
    "bytes": bytes,
    "Base64Str": pydantic.Base64Str,
    "Json": pydantic.Json,
    "datetime": datetime.datetime,
    "date": datetime.date,
    "time": datetime.time,
    "timedelta": datetime.timedelta,
    "IPv4Address": ipaddress.IPv4Address,
    "IPv6Address": ipaddress.IPv6Address,
    "IPv4Network": ipaddress.IPv4Network,
    "IPvAnyAddress": pydantic.IPvAnyAddress,
    "Enum": Color,
    "tagged union": Annotated[Cat | Dog, Field(discriminator="kind")],
    "union": Cat | Dog,
    "recursive": Node,
    "recursive tagged union": Branch,
    "NamedTuple": Point,
    "TypedDict": Place,
    "dict": dict[str, int],
    "dict by enum": dict[Literal["a", "b"], int],
    "dict by int": dict[int, str],
    "dict by pattern": dict[Annotated[str, Field(pattern="^[a-z]{2}$")], float],
    "dict by length": dict[Annotated[str, Field(min_length=2, max_length=4)], int],
    "dict of one or more": Annotated[dict[str, int], Field(min_length=1)],
    "tuple": tuple[int, str],
    "long tuple": tuple[int, ...],
    "set": set[str],
    "set of literals": set[Literal["a", "b", "c"]],
    "set of enum": set[Color],
    "frozenset": frozenset[int],
    "list": Annotated[list[str], Field(min_length=1, max_length=2)],
    "multiple": Annotated[int, Field(multiple_of=5, ge=0)],
    "multiple of a decimal": Annotated[float, Field(multiple_of=0.5, lt=10)],
    "pattern and length": Annotated[str, Field(pattern=r"^\w+$", min_length=3, max_length=5)],
    "literal": Literal["a", 1, None, True],
    "optional": int | None,
    "any": Any,
    "PositiveInt": pydantic.PositiveInt,
    "conint": Annotated[int, Field(gt=-3, lt=2**60)],
    "bool or text": bool | str,
}

MSGSPEC_TYPES: dict[str, Any] = {}


class Get(msgspec.Struct, tag=True):
    key: str


class Put(msgspec.Struct, tag=True):
    key: str
    value: Annotated[int, msgspec.Meta(ge=0, multiple_of=2)] = 0


class Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    some_name: str
    more_names: list[str] = []


class Chain(msgspec.Struct):
    value: int
    next: Chain | None = None


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: str = ""


MSGSPEC_TYPES = {
    "tagged union": Get | Put,
    "strict struct": Strict,
    "recursive struct": Chain,
    "array-like struct": Pair,
    "optional struct": Strict | None,
    "dict": dict[str, int],
    "dict by pattern": dict[Annotated[str, msgspec.Meta(pattern="^[a-z]$")], int],
    "set": set[int],
    "tuple": tuple[int, str],
    "fixed bytes": bytes,
    "date-time": datetime.datetime,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
    "enum": Color,
    "length": Annotated[str, msgspec.Meta(min_length=2, pattern="^a")],
}

MCP_TOOLS: dict[str, Any] = {
    "no arguments": {"type": "object"},
    "empty properties": {"type": "object", "properties": {}},
    "TypeScript SDK": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "Where"},
            "head": {"type": "number", "description": "Only the first lines"},
            "edits": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"oldText": {"type": "string"}, "newText": {"type": "string"}},
                    "required": ["oldText", "newText"],
                    "additionalProperties": False,
                },
            },
            "excludePatterns": {"type": "array", "items": {"type": "string"}, "default": []},
        },
        "required": ["path"],
        "additionalProperties": False,
    },
    "Python SDK": {
        "properties": {
            "timezone": {"title": "Timezone", "type": "string"},
            "max_length": {
                "default": 5000,
                "exclusiveMaximum": 1000000,
                "exclusiveMinimum": 0,
                "title": "Max Length",
                "type": "integer",
            },
            "filter": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "Filter"},
        },
        "required": ["timezone"],
        "title": "getArguments",
        "type": "object",
    },
    "without types": {"type": "object", "properties": {"value": {"description": "anything"}}},
    "unknown keywords": {
        "type": "object",
        "properties": {"a": {"type": "string", "enumDescriptions": ["x"], "x-order": 1, "optional": True}},
        "cache_control": {"type": "ephemeral"},
    },
    "openai strict": {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "City"},
            "units": {"type": ["string", "null"], "enum": ["celsius", "fahrenheit", None]},
        },
        "required": ["location", "units"],
        "additionalProperties": False,
        "strict": True,
    },
}


def generated_schemas() -> dict[str, Any]:
    """Return all schemas by a name that says where they come from."""
    pydantic_schemas = {
        f"Pydantic: {name}, {mode}": pydantic.TypeAdapter(each).json_schema(mode=mode)
        for name, each in PYDANTIC_TYPES.items()
        for mode in ("validation", "serialization")
    }
    msgspec_schemas = {f"msgspec: {name}": msgspec.json.schema(each) for name, each in MSGSPEC_TYPES.items()}
    tools = {f"MCP: {name}": each for name, each in MCP_TOOLS.items()}
    return FROM_TYPESCRIPT | pydantic_schemas | msgspec_schemas | tools


def validator(schema: Any) -> Any:
    """Return a validator for the draft of a schema; a pattern wins over the format beside it."""
    kinds = {"draft-07": jsonschema_rs.Draft7Validator, "2019-09": jsonschema_rs.Draft201909Validator}
    named = str(schema.get("$schema", "") if isinstance(schema, dict) else "")
    default = jsonschema_rs.Draft7Validator if '"items": [' in json.dumps(schema) else None
    kind = next((each for name, each in kinds.items() if name in named), default)
    return (kind or jsonschema_rs.Draft202012Validator)(_standard(schema), validate_formats=True)


def _standard(schema: Any) -> Any:
    """Return a schema without what its draft does not have: booleans as bounds, ``nullable``."""
    if isinstance(schema, list):
        return list(map(_standard, schema))
    if not isinstance(schema, dict):
        return schema
    standard = {name: _standard(each) for name, each in schema.items()}
    if "pattern" in schema or "const" in schema:
        standard.pop("format", None)
        standard.pop("contentEncoding", None)
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        if standard.get(exclusive) is True:
            standard[exclusive] = standard.pop(bound)
    if standard.pop("nullable", False) is True:
        return {"anyOf": [standard, {"type": "null"}]}
    return standard
