"""Arguments whose type the text does not tell, as JSON by the schema of their parameter.

Formats with a tag for each parameter write ``5`` and ``"5"`` alike; only the request's tools tell them apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fllm.parsing.json_scanner import LONGEST, JsonScanner
from fllm.parsing.literal_reader import quoted
from fllm.parsing.python_call_reader import PythonCallReader, number
from fllm.parsing.tool_parameters import Parameters, choices, kind_of


def from_text(text: str, schema: Any, parameters: Parameters) -> str:
    """The JSON of an argument, given its plain text; a string, where it can be nothing else.

    What may be a string is one, but for ``null``: a zip code is no number.
    """
    for choice in choices(parameters.resolved(schema)):
        if text.strip() == (choice if isinstance(choice, str) else json.dumps(choice)):
            return quoted(choice) if isinstance(choice, str) else json.dumps(choice)
    value = _of_kind(text, parameters.kinds(schema))
    return coerced(value, schema, parameters) if value else quoted(text)


def from_any_text(text: str) -> str:
    """The same where no schema is known, but only what is no string is written as JSON."""
    value = text.strip()
    return value if not value.startswith('"') and is_json(value) else quoted(text)


def coerced(value: str, schema: Any, parameters: Parameters) -> str:
    """The same JSON with scalars of the types that the schema asks for, where the text allows that."""
    if not value.startswith(("{", "[")):
        return _scalar(value, parameters.kinds(schema))
    old = json.loads(value)
    new = _coerced(old, schema, parameters)
    try:
        return value if new == old else json.dumps(new, ensure_ascii=False, allow_nan=False)
    except ValueError:  # a number that is beyond floating point
        return value


def is_json(text: str) -> bool:
    """Whether this is a JSON value, and one that every parser takes."""
    scanner = JsonScanner()
    member = f'{{"":{text}}}'
    scanner.feed(member)
    return scanner.state == "complete" and scanner.length == len(member) and len(scanner.members) == 1


def read_value(text: str) -> str | None:
    """The JSON of a value that is written in JSON, or in Python."""
    if is_json(text):
        return text
    scanner = PythonCallReader()
    call = f"_(_={text})"
    scanner.feed(call)
    if scanner.state != "complete" or scanner.length != len(call):
        return None
    (_, arguments), *_ = scanner.calls
    return arguments["_"] if len(arguments) == 1 else None


def _of_kind(text: str, kinds: frozenset[str]) -> str | None:
    word = text.strip()
    if "null" in kinds and word in ("null", "None"):
        return "null"
    if not kinds or "string" in kinds:
        return None
    if "boolean" in kinds and word.lower() in ("true", "false"):
        return word.lower()
    if kinds & {"integer", "number"} and len(word) <= LONGEST and (value := number(word)):
        return value
    return read_value(word) if kinds & {"object", "array"} else None


def _scalar(value: str, kinds: frozenset[str]) -> str:
    decoded = json.loads(value)
    kind = kind_of(decoded)
    if kind in kinds or (kind == "integer" and "number" in kinds):
        return value
    if isinstance(decoded, str):
        return _of_kind(decoded, kinds) or value
    return quoted(value) if "string" in kinds else value


def _coerced(value: Any, schema: Any, parameters: Parameters) -> Any:
    schema = parameters.resolved(schema)
    match value:
        case dict():
            inner = schema.get("properties")
            schemas: Mapping[str, Any] = inner if isinstance(inner, Mapping) else {}
            return {key: _coerced(each, schemas.get(key), parameters) for key, each in value.items()}
        case list():
            return [_coerced(each, schema.get("items"), parameters) for each in value]
        case _ if kinds := parameters.kinds(schema):
            return json.loads(_scalar(json.dumps(value), kinds))
        case _:
            return value
