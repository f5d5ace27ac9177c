"""The keywords of JSON Schema: supported ones, annotations, and the errors for all others."""

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
"""Keywords that do not constrain the value. Those that begin with ``x-`` are annotations, too."""

KEYWORDS_BY_TYPE = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "object": (
        *("properties", "required", "additionalProperties", "patternProperties"),
        *("minProperties", "maxProperties"),
    ),
}
"""Keywords that constrain values of one type only."""
TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
COMBINATORS = ("$ref", "allOf", "anyOf", "oneOf")
"""Keywords that refer to other schemas for the same value."""
CONSTRAINING_KEYWORDS = frozenset(
    ("type", "enum", "const", *(name for names in KEYWORDS_BY_TYPE.values() for name in names))
)


def unsupported(keyword: str, why: str) -> RequestError:
    """Return the error for a schema that is valid but can't be enforced."""
    return RequestError(f"unsupported JSON schema at {keyword!r}: {why}", code="unsupported_schema")


def invalid(keyword: str, why: str) -> RequestError:
    """Return the error for a schema that is not valid or that no value satisfies."""
    return RequestError(f"invalid JSON schema at {keyword!r}: {why}", code="unsupported_schema")
