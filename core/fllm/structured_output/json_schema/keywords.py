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
        *("$dynamicAnchor", "$recursiveAnchor", "$vocabulary"),
        *("contentEncoding", "contentMediaType", "contentSchema"),
    )
)
"""Keywords that do not constrain the value. Those that begin with ``x-`` are annotations, too."""

KEYWORDS_BY_TYPE = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "array": (
        *("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
        *("contains", "minContains", "maxContains"),
    ),
    "object": (
        *("properties", "required", "additionalProperties", "patternProperties"),
        *("minProperties", "maxProperties", "propertyNames"),
    ),
}
"""Keywords that constrain values of one type only."""
TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
COMBINATORS = ("$ref", "allOf", "anyOf", "oneOf")
"""Keywords that refer to other schemas for the same value."""
CONDITIONS = ("not", "if", "then", "else", "dependentRequired", "dependentSchemas")
"""Keywords that are rewritten with the combinators."""
UNEVALUATED = {"unevaluatedProperties": "additionalProperties", "unevaluatedItems": "items"}
"""Keywords that apply to what no schema for the same value mentions, and the keyword for one schema."""
UNSUPPORTED = ("$dynamicRef", "$recursiveRef")
"""Keywords that constrain the value and are not supported."""


class SchemaError(RequestError):
    """A keyword of a schema is invalid or can't be enforced."""

    def __init__(self, problem: str, keyword: str, why: str, pointer: str | None = None) -> None:
        where = "" if pointer is None else f" in {pointer!r}"
        super().__init__(f"{problem} JSON schema at {keyword!r}{where}: {why}", code="unsupported_schema")
        self.problem = problem
        self.keyword = keyword
        self.why = why
        self.pointer = pointer
        """The JSON pointer of the schema that has the keyword, once it is known."""

    def at(self, pointer: str) -> SchemaError:
        """Return the error with the JSON pointer of the schema that has the keyword."""
        return self if self.pointer else SchemaError(self.problem, self.keyword, self.why, pointer)


def unsupported(keyword: str, why: str) -> SchemaError:
    """Return the error for a schema that is valid but can't be enforced."""
    return SchemaError("unsupported", keyword, why)


def invalid(keyword: str, why: str) -> SchemaError:
    """Return the error for a schema that is not valid or that no value satisfies."""
    return SchemaError("invalid", keyword, why)
