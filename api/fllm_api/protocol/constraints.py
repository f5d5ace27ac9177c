"""What an answer must be like, as OpenAI and as vLLM spell it."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

SchemaObject = dict[str, Any] | bool
"""A JSON Schema."""
SchemaOrText = dict[str, Any] | bool | str
"""A JSON Schema, or its JSON text."""
NonEmptyText = Annotated[str, Meta(min_length=1)]
ChoiceStrings = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1)]


class TextFormat(Struct, frozen=True, tag="text"):
    """Any text."""


class JsonObjectFormat(Struct, frozen=True, tag="json_object"):
    """Some JSON object."""


class NamedSchema(Struct, frozen=True, kw_only=True):
    """A JSON Schema; its name and description are labels without effect."""

    schema: SchemaObject
    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    """The answer obeys the schema, whatever this says."""


class JsonSchemaFormat(Struct, frozen=True, tag="json_schema"):
    """JSON that a schema allows."""

    json_schema: NamedSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(Struct, frozen=True, kw_only=True):
    """vLLM's way to say it: exactly one of the fields."""

    json: SchemaOrText | None = None
    regex: NonEmptyText | None = None
    choice: ChoiceStrings | None = None
    grammar: NonEmptyText | None = None
    json_object: bool | None = None
    structural_tag: Any = None
    whitespace_pattern: Any = None
