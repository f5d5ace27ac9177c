"""The keywords of JSON Schema: which are understood, which say nothing about the text, which are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fllm.errors import RequestError

Schema = Mapping[str, Any]

ANNOTATIONS = frozenset(
    (
        *("title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "id", "$comment", "$anchor", "$defs", "definitions", "discriminator"),
        *("contentEncoding", "contentMediaType"),
    )
)
"""They allow any value; those that begin with ``x-`` are annotations, too."""

ABOUT = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "object": (
        *("properties", "required", "additionalProperties", "patternProperties"),
        *("minProperties", "maxProperties"),
    ),
}
"""Keywords that say something about values of one type only."""
TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
COMBINING = ("$ref", "allOf", "anyOf", "oneOf")
PLAIN = frozenset(("type", "enum", "const", *(name for names in ABOUT.values() for name in names)))


def refuse(keyword: str, why: str) -> RequestError:
    """The error for a schema that can't be served."""
    return RequestError(f"the JSON schema has {keyword!r}: {why}", code="unsupported_schema")
