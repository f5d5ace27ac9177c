"""Every text that a grammar accepts satisfies its schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from support.random_texts import Walker
from support.schema_corpus import SUPPORTED

from fllm import GrammarCompiler, RequestError
from fllm.constraints import JsonSchema
from fllm_backends.grammars.llguidance import LLGuidance

WALKS = 3


@pytest.mark.parametrize("schema", SUPPORTED, ids=lambda schema: json.dumps(schema)[:60])
def test_random_tokens_that_the_grammar_allows_satisfy_the_schema(
    schema: Any, compiler: GrammarCompiler, walker: Walker
) -> None:
    try:
        grammar = compiler.compile(JsonSchema(json.dumps(schema)))
    except RequestError as error:
        if not isinstance(compiler, LLGuidance) or "min/maxProperties only supported" not in error.message:
            raise
        return
    check = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    for seed in range(WALKS):
        if text := walker.text(grammar, seed):
            check.validate(json.loads(text))
