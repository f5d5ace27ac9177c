"""Any JSON as a schema is compiled or rejected, and the compilers keep working."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from support.schema_strategies import anything, damaged

from fllm import GrammarCompiler, RequestError
from fllm.constraints import JsonSchema, Regex


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=anything() | damaged())
def test_any_json_is_compiled_or_rejected(compiler: GrammarCompiler, value: Any) -> None:
    with contextlib.suppress(RequestError):
        compiler.compile(JsonSchema(json.dumps(value)))
    assert compiler.compile(Regex("yes|no")).size
