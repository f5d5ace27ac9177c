"""Arguments that were written as plain text, converted to JSON of the types that a schema allows.

Formats with a tag for each argument write ``5`` and ``"5"`` alike; only the schemas of the request's tools
distinguish them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fllm.parsing.body_scanner import MAX_NUMBER_LENGTH
from fllm.parsing.json_scanner import JsonScanner
from fllm.parsing.literal_scanner import quoted
from fllm.parsing.python_call_scanner import PythonCallScanner, number
from fllm.parsing.tool_parameters import Parameters, choices, json_type


def from_text(text: str, schema: Any, parameters: Parameters) -> str:
    """Return the JSON of an argument that was written as plain text; a string if nothing else is possible.

    Where a schema allows a string, the value is one, except for ``null``: a zip code is not a number.
    """
    for choice in choices(parameters.resolved(schema)):
        if text.strip() == (choice if isinstance(choice, str) else json.dumps(choice)):
            return quoted(choice) if isinstance(choice, str) else json.dumps(choice)
    value = _parse_as_types(text, parameters.types(schema))
    return coerced(value, schema, parameters) if value else quoted(text)


def from_any_text(text: str) -> str:
    """Return the JSON of an argument without a schema, in a format that writes all but strings as JSON."""
    value = text.strip()
    return value if not value.startswith('"') and is_json(value) else quoted(text)


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


def is_json(text: str) -> bool:
    """Return whether ``text`` is a JSON value that every JSON parser accepts."""
    scanner = JsonScanner()
    member = f'{{"":{text}}}'
    scanner.feed(member)
    return scanner.state == "complete" and scanner.length == len(member) and len(scanner.spans) == 1


def read_value(text: str) -> str | None:
    """Return the JSON of a value that is written as JSON or as a Python literal, or else ``None``."""
    if is_json(text):
        return text
    scanner = PythonCallScanner()
    call = f"_(_={text})"
    scanner.feed(call)
    if scanner.state != "complete" or scanner.length != len(call):
        return None
    (_, arguments), *_ = scanner.calls
    return arguments["_"] if len(arguments) == 1 else None


def _parse_as_types(text: str, types: frozenset[str]) -> str | None:
    word = text.strip()
    if "null" in types and word in ("null", "None"):
        return "null"
    if not types or "string" in types:
        return None
    if "boolean" in types and word.lower() in ("true", "false"):
        return word.lower()
    if types & {"integer", "number"} and len(word) <= MAX_NUMBER_LENGTH and (value := number(word)):
        return value
    return read_value(word) if types & {"object", "array"} else None


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
