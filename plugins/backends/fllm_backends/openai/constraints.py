"""Convert constraints to vLLM's ``structured_outputs``."""

from __future__ import annotations

from typing import Any

import msgspec

from fllm import RequestError
from fllm.constraints import AnyOf, Constraint, ConstString, Grammar, JsonSchema, Regex


def structured_outputs(constraint: Constraint) -> dict[str, Any]:
    """Return the value of ``structured_outputs``; raise `RequestError` if it can't express the constraint."""
    match constraint:
        case JsonSchema(schema):
            return {"json": msgspec.Raw(schema.encode())}
        case Regex(pattern):
            return {"regex": pattern}
        case Grammar(source):
            return {"grammar": source}
        case ConstString(text):
            return {"choice": [text]}
        case AnyOf(options):
            texts = [option.text for option in options if isinstance(option, ConstString)]
            if len(texts) == len(options):
                return {"choice": texts}
    raise RequestError(
        "the upstream server does not support this constraint: "
        "it supports a JSON schema, a regular expression, a grammar or a choice of texts",
        code="unsupported_parameter",
    )
