"""Read the structured-output fields of a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from fllm.constraints import ANY_OBJECT, AnyOf, Constraint, ConstString, Grammar, JsonSchema, Regex
from fllm.errors import RequestError
from fllm.extras import install_command, missing_modules
from fllm.pipeline.output_constraint import OutputConstraint
from fllm.requests.constraints import (
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedSchema,
    SchemaObject,
    SchemaOrText,
    StructuredOutputs,
)
from fllm.requests.generation import GenerationRequest
from fllm.values import ModelCard

MAX_CONSTRAINT_CHARS = 128 * 1024
"""Maximum length of a schema, a pattern, a grammar, or all choices together."""
MAX_SCHEMA_DEPTH = 100
"""Maximum nesting depth of a schema."""
_UNSUPPORTED_OPTIONS = (
    "structural_tag",
    "whitespace_pattern",
    "disable_any_whitespace",
    "disable_additional_properties",
)
"""Fields of `StructuredOutputs` that this server does not support."""
_COMBINATORS = ("$ref", "allOf", "anyOf", "oneOf")


def read_output_constraint(body: GenerationRequest, card: ModelCard) -> OutputConstraint | None:
    """Return the constraint of a request, or ``None``.

    Raise `RequestError` if the request has several constraints, or one that is invalid or not supported.
    """
    constraints = list(_requested_constraints(body))
    if not constraints:
        return None
    if len(constraints) > 1:
        first, second = constraints[0].param, constraints[1].param
        raise RequestError(f"`{first}` and `{second}` can't be combined: send only one of them", param=second)
    check_constraint_supported(body, card, constraints[0].param)
    return constraints[0]


def check_constraint_supported(body: GenerationRequest, card: ModelCard, param: str) -> None:
    """Raise `RequestError` if the server or the decoding method can't apply the constraint in ``param``."""
    if card.grammar is None:
        hint = f" ({install_command('torch')})" if missing_modules("torch") else ""
        raise RequestError(
            f"`{param}` is not supported: the server runs without structured output; start it with "
            f"--grammar-backend NAME and a backend that supports it, such as torch{hint}, or openai with its "
            "option `constraints`",
            param=param,
            code="unsupported_parameter",
        )
    if body.use_beam_search:
        raise RequestError(f"`use_beam_search` can't be combined with `{param}`", param="use_beam_search")


def schema_text(schema: Any, param: str) -> str:
    """Return a schema as JSON text. Raise `RequestError` if it is too long or nested too deeply."""
    if _is_nested_deeper(schema, MAX_SCHEMA_DEPTH):
        raise RequestError(
            f"`{param}` is nested too deeply; the maximum is {MAX_SCHEMA_DEPTH} levels", param=param
        )
    try:
        text = msgspec.json.encode(schema).decode()
    except OverflowError as error:
        raise RequestError(f"`{param}` has an integer that does not fit into 64 bits", param=param) from error
    return check_length(text, param)


def with_object_type(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with ``type`` set to "object" if it can be added."""
    if not schema or any(word in schema for word in _COMBINATORS):
        return schema
    return {"type": "object", **schema}


def check_length(text: str, param: str) -> str:
    """Return the text. Raise `RequestError` if it is too long."""
    if len(text) > MAX_CONSTRAINT_CHARS:
        raise RequestError(
            f"`{param}` has {len(text)} characters; the maximum is {MAX_CONSTRAINT_CHARS}", param=param
        )
    return text


def _requested_constraints(body: GenerationRequest) -> Iterator[OutputConstraint]:
    match body.response_format:
        case JsonObjectFormat(schema=dict(schema)) if schema:
            yield _json_schema(with_object_type(schema), "response_format.schema")
        case JsonObjectFormat(schema=False):
            yield _json_schema(False, "response_format.schema")
        case JsonObjectFormat():
            yield OutputConstraint(ANY_OBJECT, "response_format")
        case JsonSchemaFormat(json_schema=NamedSchema(schema=schema)):
            yield _json_schema(schema, "response_format.json_schema.schema")
        case JsonSchemaFormat(schema=dict() | bool() as schema):
            yield _json_schema(schema, "response_format.schema")
        case JsonSchemaFormat():
            param = "response_format.json_schema"
            raise RequestError(f"`{param}` is missing", param=param)
    yield from _structured_outputs(body.structured_outputs or StructuredOutputs())
    yield from _vllm_constraints(
        "guided_", body.guided_json, body.guided_regex, body.guided_choice, body.guided_grammar
    )


def _json_schema(schema: SchemaObject, param: str) -> OutputConstraint:
    return OutputConstraint(JsonSchema(schema_text(schema, param)), param)


def _structured_outputs(outputs: StructuredOutputs) -> Iterator[OutputConstraint]:
    for name in _UNSUPPORTED_OPTIONS:
        if getattr(outputs, name) not in (None, False):
            param = f"structured_outputs.{name}"
            raise RequestError(f"`{param}` is not supported", param=param, code="unsupported_parameter")
    if outputs.json_object:
        yield OutputConstraint(ANY_OBJECT, "structured_outputs.json_object")
    yield from _vllm_constraints(
        "structured_outputs.", outputs.json, outputs.regex, outputs.choice, outputs.grammar
    )


def _vllm_constraints(
    prefix: str,
    json: SchemaOrText | None,
    regex: str | None,
    choice: list[str] | None,
    grammar: str | None,
) -> Iterator[OutputConstraint]:
    if json is not None:
        param = f"{prefix}json"
        yield _json_schema(_parse_schema(json, param) if isinstance(json, str) else json, param)
    if regex is not None:
        yield OutputConstraint(Regex(check_length(regex, f"{prefix}regex")), f"{prefix}regex")
    if choice is not None:
        yield OutputConstraint(_any_of(choice, f"{prefix}choice"), f"{prefix}choice")
    if grammar is not None:
        yield OutputConstraint(Grammar(check_length(grammar, f"{prefix}grammar")), f"{prefix}grammar")


def _parse_schema(text: str, param: str) -> Any:
    try:
        return msgspec.json.decode(check_length(text, param), type=dict[str, Any] | bool)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"`{param}` is not a JSON schema in JSON text: {error}", param=param) from error


def _any_of(options: list[str], param: str) -> Constraint:
    check_length("".join(options), param)
    return AnyOf(tuple(map(ConstString, dict.fromkeys(options))))


def _is_nested_deeper(value: Any, levels: int) -> bool:
    level = [value]
    while level and levels >= 0:
        levels -= 1
        level = [child for each in level for child in _children(each)]
    return bool(level)


def _children(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
