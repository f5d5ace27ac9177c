"""Random schemas: the grammar's texts satisfy the schema, and the grammar accepts values of the schema."""

from __future__ import annotations

import json

import jsonschema
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.random_texts import Walker, certainly_fits, rejected_at
from support.schema_values import Case, cases

from fllm import GrammarCompiler, Vocabulary
from fllm.constraints import JsonSchema

EXAMPLES = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@EXAMPLES
@given(case=cases(), seed=st.integers(0, 99))
def test_random_tokens_satisfy_a_random_schema(
    case: Case, seed: int, llguidance: GrammarCompiler, walker: Walker
) -> None:
    schema, _ = case
    text = walker.text(llguidance.compile(JsonSchema(json.dumps(schema))), seed, free=10, max_tokens=150)
    if text is not None:
        jsonschema.Draft202012Validator(
            schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        ).validate(json.loads(text))


@EXAMPLES
@given(case=cases(), data=st.data())
def test_the_grammar_accepts_values_of_a_random_schema(
    case: Case, data: st.DataObject, llguidance: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    schema, values = case
    grammar = llguidance.compile(JsonSchema(json.dumps(schema)))
    for _ in range(3):
        text = json.dumps(data.draw(values), ensure_ascii=False)
        assume(certainly_fits(text, schema))
        assert rejected_at(grammar, vocabulary, text) is None
