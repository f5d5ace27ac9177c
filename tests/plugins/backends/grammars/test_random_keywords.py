"""Random combinations of all keywords: the grammar's texts satisfy every schema that is accepted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema_rs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.random_texts import Walker

from fllm import CompiledGrammar, Constraint, RequestError
from fllm.constraints import JsonSchema

NAMES = st.sampled_from(["a", "b", "ab", "x"])
NUMBERS = st.integers(-3, 9)
COUNTS = st.integers(0, 3)
VALUES = st.sampled_from(["a", "ab", "b", 1, 2, 0, None, True, [1], {"a": 1}, 1.5])
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"])
PATTERNS = st.sampled_from(["^a", "b$", "^[ab]+$", "^(?!a)", "^(?=.*b)[abc]+$"])


def with_keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=2)
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=4),
        "const": VALUES,
        "multipleOf": st.sampled_from([1, 2, 3, 0.5]),
        "pattern": PATTERNS,
        "format": st.sampled_from(["date", "uuid", "x"]),
        "properties": st.dictionaries(NAMES, inner, max_size=3),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), inner, max_size=2),
        "propertyNames": st.sampled_from(
            [{"enum": ["a", "b"]}, {"pattern": "^a"}, {"minLength": 2}, {"not": {"const": "a"}}]
        ),
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=1), max_size=2),
        "dependentSchemas": st.dictionaries(NAMES, inner, max_size=1),
        **dict.fromkeys(("unevaluatedProperties", "unevaluatedItems"), st.just(False)),
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), NUMBERS),
        **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), some),
        **dict.fromkeys(("not", "if", "then", "else", "items", "contains", "additionalProperties"), inner),
        **{
            f"{bound}{what}": COUNTS
            for bound in ("min", "max")
            for what in ("Length", "Items", "Properties", "Contains")
        },
    }
    chosen = st.lists(st.sampled_from(sorted(keywords)), min_size=1, max_size=4, unique=True)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({name: keywords[name] for name in names}))


SCHEMAS = st.recursive(st.booleans() | with_keywords(st.just(True)), with_keywords, max_leaves=4)


@settings(deadline=None, max_examples=200, suppress_health_check=[*HealthCheck])
@given(schema=SCHEMAS, seed=st.integers(0, 99))
def test_random_tokens_satisfy_any_schema_that_is_accepted(
    schema: Any, seed: int, compile: Callable[[Constraint], CompiledGrammar], walker: Walker
) -> None:
    try:
        grammar = compile(JsonSchema(json.dumps(schema)))
    except RequestError:
        return
    if text := walker.text(grammar, seed, free=8, max_tokens=120):
        value = json.loads(text)
        if "Infinity" not in json.dumps(value):  # a number with too many digits for the validator
            jsonschema_rs.Draft202012Validator(schema).validate(value)
