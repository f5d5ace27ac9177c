"""Arguments that were written as plain text, converted to JSON of the types that a schema allows.

Formats with a tag for each argument write ``5`` and ``"5"`` alike; only the schemas of the request's tools
distinguish them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fllm.parsing.argument_writer import quoted
from fllm.parsing.body_scanner import MAX_NUMBER_LENGTH
from fllm.parsing.json_scanner import PYTHON_WORDS, JsonScanner
from fllm.parsing.python_call_scanner import PythonCallScanner, number
from fllm.parsing.tool_parameters import Parameters, choices, json_type


def from_text(text: str, schema: Any, parameters: Parameters) -> str:
    """Return the JSON of an argument that was written as plain text; a string if nothing else is possible.

    Where a schema allows a string, the value is one, except for ``null`` and for JSON arrays and objects that
    the schema allows too: a zip code is not a number.
    """
    for choice in choices(parameters.resolved(schema)):
        if text.strip() == (choice if isinstance(choice, str) else json.dumps(choice)):
            return quoted(choice) if isinstance(choice, str) else json.dumps(choice)
    value = _parse_as_types(text, parameters.types(schema))
    return coerced(value, schema, parameters) if value else quoted(text)


def from_any_text(text: str) -> str:
    """Return the JSON of an argument without a schema, in a format that writes all but strings as JSON."""
    value = None if text.lstrip().startswith('"') else as_json(text.strip())
    return quoted(text) if value is None else value


def coerced(value: str, schema: Any, parameters: Parameters) -> str:
    """Return JSON with its scalars converted to the types that the schema allows, where that is possible."""
    if not value.startswith(("{", "[")):
        return _coerced_scalar(value, parameters.types(schema))
    old = json.loads(value)
    new = _coerced(old, schema, parameters)
    try:
        return value if new == old else json.dumps(new, ensure_ascii=False, allow_nan=False)
    except ValueError:  # a number beyond the range of floats
        return value


def as_json(text: str) -> str | None:
    """Return ``text`` if it is a JSON value, or else ``None``.

    What JSON does not allow, and `JsonScanner` accepts, is replaced. A word of Python alone is not a value.
    """
    if text in PYTHON_WORDS:
        return None
    scanner = JsonScanner()
    member = f'{{"":{text}}}'
    scanner.feed(member)
    valid = scanner.state == "complete" and scanner.length == len(member) and len(scanner.spans) == 1
    return scanner.json_text(4, len(member) - 1) if valid else None


def read_value(text: str) -> str | None:
    """Return the JSON of a value that is written as JSON or as a Python literal, or else ``None``."""
    if (value := as_json(text)) is not None:
        return value
    scanner = PythonCallScanner()
    call = f"_(_={text})"
    scanner.feed(call)
    if scanner.state != "complete" or scanner.length != len(call):
        return None
    arguments = scanner.calls[0].arguments
    return arguments[0].value if len(arguments) == 1 else None


def _parse_as_types(text: str, types: frozenset[str]) -> str | None:
    word = text.strip()
    if "null" in types and word in ("null", "None"):
        return "null"
    if not types:
        return None
    if "string" in types:
        return _array_or_object(word, types)
    if "boolean" in types and word.lower() in ("true", "false"):
        return word.lower()
    if types & {"integer", "number"} and len(word) <= MAX_NUMBER_LENGTH and (value := number(word)):
        return value
    return read_value(word) if types & {"object", "array"} else None


def _array_or_object(word: str, types: frozenset[str]) -> str | None:
    """Return what is written as JSON if it is of one of these types, where a string is possible as well."""
    for type_, bracket in (("array", "["), ("object", "{")):
        if type_ in types and word.startswith(bracket):
            return as_json(word)
    return None


def _coerced_scalar(value: str, types: frozenset[str]) -> str:
    decoded = json.loads(value)
    type_ = json_type(decoded)
    if type_ in types or (type_ == "integer" and "number" in types):
        return value
    if isinstance(decoded, str):
        return _parse_as_types(decoded, types) or value
    return quoted(value) if "string" in types else value


def _coerced(value: Any, schema: Any, parameters: Parameters) -> Any:
    schema = parameters.resolved(schema)
    match value:
        case dict():
            properties = schema.get("properties")
            schemas: Mapping[str, Any] = properties if isinstance(properties, Mapping) else {}
            return {key: _coerced(each, schemas.get(key), parameters) for key, each in value.items()}
        case list():
            return [_coerced(each, schema.get("items"), parameters) for each in value]
        case _ if types := parameters.types(schema):
            return json.loads(_coerced_scalar(json.dumps(value), types))
        case _:
            return value
