"""Structured-output fields of a request, in OpenAI's and in vLLM's form."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

SchemaObject = dict[str, Any] | bool
"""A JSON Schema."""
SchemaOrText = dict[str, Any] | bool | str
"""A JSON Schema, as JSON or as a string of JSON."""
NonEmptyText = Annotated[str, Meta(min_length=1)]
ChoiceStrings = Annotated[list[NonEmptyText], Meta(min_length=1)]


class TextFormat(Struct, frozen=True, tag="text"):
    """``response_format`` that allows any text."""


class JsonObjectFormat(Struct, frozen=True, tag="json_object"):
    """``response_format`` that requires a JSON object."""

    schema: SchemaObject | None = None
    """The object's JSON Schema: an extension of llama.cpp and others."""


class NamedSchema(Struct, frozen=True, kw_only=True):
    """A JSON Schema. Its name and description have no effect."""

    schema: SchemaObject
    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    """Ignored: the output always matches the schema."""


class JsonSchemaFormat(Struct, frozen=True, tag="json_schema"):
    """``response_format`` that requires JSON matching a schema, which is in one of the two fields."""

    json_schema: NamedSchema | None = None
    schema: SchemaObject | None = None
    """The schema without a name: llama.cpp's and others' form."""


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(Struct, frozen=True, kw_only=True):
    """vLLM's structured outputs. Exactly one of the fields may be set."""

    json: SchemaOrText | None = None
    regex: NonEmptyText | None = None
    choice: ChoiceStrings | None = None
    grammar: NonEmptyText | None = None
    json_object: bool | None = None
    disable_additional_properties: bool | None = None
    disable_any_whitespace: bool | None = None
    structural_tag: Any = None
    whitespace_pattern: Any = None
