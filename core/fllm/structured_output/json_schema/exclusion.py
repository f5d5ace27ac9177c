"""Describe the values that are left when some are excluded."""

from __future__ import annotations

from typing import Any

from fllm.structured_output.json_schema.keywords import unsupported

MAX_EXCLUDED_CHARACTERS = 2000
"""Maximum length of all texts that a schema excludes, since the pattern of the others is longer."""


def json_type(value: Any) -> str:
    """Return the narrowest type of a JSON value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case float():
            return "integer" if value.is_integer() else "number"
        case int():
            return "integer"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def other_texts(excluded: list[str]) -> str:
    """Return a pattern that matches all texts but those in ``excluded``."""
    if sum(map(len, excluded)) > MAX_EXCLUDED_CHARACTERS or max(map(len, excluded)) > 100:
        raise unsupported("not", "the excluded texts are too long")
    return f"^{_others(excluded)}$"


def _others(excluded: list[str]) -> str:
    """Return the pattern of the texts that are not the rest of an excluded text."""
    if not excluded:
        return r"[\s\S]*"
    tails: dict[str, list[str]] = {}
    for text in excluded:
        if text:
            tails.setdefault(text[0], []).append(text[1:])
    options = [] if "" in excluded else [""]
    options.append(rf"[^{''.join(map(_escaped, tails))}][\s\S]*" if tails else r"[\s\S]+")
    options += [f"{_escaped(head)}{_others(rest)}" for head, rest in tails.items()]
    return f"(?:{'|'.join(options)})"


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else character
