"""The grammar of a schema accepts the values of hypothesis-jsonschema, written as `docs/api.md` specifies."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis_jsonschema import from_schema
from support.random_texts import certainly_fits, rejected_at

from fllm import GrammarCompiler, Vocabulary
from fllm.constraints import JsonSchema

WHOLE: Any = {"type": "integer", "minimum": -(10**6), "maximum": 10**6}
PERSON: Any = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["a", "b", 3, None, "ü"]}, "maxItems": 4},
    },
    "required": ["name"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, Any] = {
    "an object": PERSON,
    "objects in a list": {"type": "array", "items": PERSON, "minItems": 1, "maxItems": 3},
    "an object within": {
        "type": "object",
        "properties": {"who": PERSON, "on": {"type": "boolean"}},
        "required": ["who", "on"],
        "additionalProperties": False,
    },
    "one of several": {"anyOf": [PERSON, {"type": "null"}, {"const": [1, "x"]}, {"type": "boolean"}]},
    "a definition": {"$defs": {"n": WHOLE}, "type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 9},
    "a map": {"type": "object", "additionalProperties": WHOLE, "maxProperties": 3},
    "bounds": {"type": "integer", "exclusiveMinimum": 7, "maximum": 1234},
    "several types": {"type": ["null", "boolean", "string"]},
    "a length": {"type": "string", "minLength": 2, "maxLength": 9},
    "a pattern": {"type": "string", "pattern": "^[a-z]{2,5}-[0-9]+$"},
}


UNUSUAL = re.compile(r"\\u|[^\x00-\x7e\x80-\ud7ff]")
"""Control characters are not supported, and the vocabulary has no bytes for some others."""


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_the_grammar_accepts_values_of_the_schema(
    schema: Any, llguidance: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    grammar = llguidance.compile(JsonSchema(json.dumps(schema)))

    @settings(deadline=None, max_examples=30, suppress_health_check=[*HealthCheck])
    @given(from_schema(schema))
    def check(value: Any) -> None:
        text = json.dumps(in_order(value, schema), ensure_ascii=False)
        assume(not UNUSUAL.search(text) and certainly_fits(text, schema))
        assert rejected_at(grammar, vocabulary, text) is None

    check()


def in_order(value: Any, schema: Any) -> Any:
    """Return the value with its properties in the order of the schema."""
    match value:
        case dict():
            known = schema.get("properties") or next(
                (each["properties"] for each in schema.get("anyOf", ()) if "properties" in each), {}
            )
            keys = [*(key for key in known if key in value), *(key for key in value if key not in known)]
            return {key: in_order(value[key], known.get(key, {})) for key in keys}
        case list():
            return [in_order(each, schema.get("items") or {}) for each in value]
        case _:
            return value
