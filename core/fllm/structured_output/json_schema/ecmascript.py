"""Rewrite what ECMAScript's regular expressions have and those of other languages read differently."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}  # a surrogate pair
    | \\[pPux]\{[^}]*\}
    | \\c[a-zA-Z]
    | \\.
    | \[\^\]
    | \{[0-9]+(?:,[0-9]*)?\}
    | .""",
    re.VERBOSE | re.DOTALL,
)


def without_dialect(pattern: str) -> str:
    """Return a pattern with the same meaning in ECMAScript, Python and Rust."""
    parts: list[str] = []
    in_class = False
    for match in _TOKEN.finditer(pattern):
        token = match[0]
        if token.startswith("\\"):
            parts.append(_escape(token, in_class))
        elif in_class:
            # Rust has classes within classes and, by double characters, operations on them.
            is_special = token in "[&~" or (token == "-" and parts[-1] == "-")
            parts.append(f"\\{token}" if is_special else token.replace("[", "\\["))
            in_class = token != "]"
        else:
            in_class = token == "["
            parts.append({"[^]": r"[\s\S]", "{": r"\{"}.get(token, token))
    return "".join(parts)


def _escape(token: str, in_class: bool) -> str:
    if len(token) == 12:  # a surrogate pair
        return bytes.fromhex(token[2:6] + token[8:]).decode("utf-16-be")
    character = token[1]
    if character == "c" and len(token) == 3:
        return f"\\x{ord(token[2]) % 32:02x}"
    if character in "<>" or ord(character) > 127:
        return character
    if in_class:
        return {"b": r"\x08", "0": r"\x00"}.get(character, token)
    # Generators in Python and Rust write these anchors, which ECMAScript does not have.
    return {"0": r"\x00", "A": "^", "Z": "$", "z": "$"}.get(character, token)
