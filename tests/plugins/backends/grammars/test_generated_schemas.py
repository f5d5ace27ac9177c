"""Schemas as generators write them are accepted, and what their grammars allow satisfies them."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from support.generated_schemas import generated_schemas, validator
from support.random_texts import Walker

from fllm import CompiledGrammar, Constraint
from fllm.constraints import JsonSchema

TEXTS = 3
MAX_WALKS = 15
SCHEMAS = generated_schemas()


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_random_tokens_satisfy_a_schema_as_generators_write_it(
    schema: Any, compile: Callable[[Constraint], CompiledGrammar], walker: Walker
) -> None:
    grammar = compile(JsonSchema(json.dumps(schema)))
    walks = (walker.text(grammar, seed, free=10, max_tokens=600) for seed in range(MAX_WALKS))
    texts = list(islice(filter(None, walks), TEXTS))
    assert texts
    check = validator(schema)
    for text in texts:
        value = json.loads(text)
        if "Infinity" not in json.dumps(value):  # a number with too many digits for the validator
            check.validate(value)
