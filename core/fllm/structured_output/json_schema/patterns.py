"""Rewrite regular expressions of schemas without look-around, and check that they can be enforced."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fllm.errors import RequestError
from fllm.structured_output.json_schema.ecmascript import without_dialect
from fllm.structured_output.json_schema.keywords import unsupported

MAX_REPEATS = 1000
"""Maximum ``n`` of a repeat ``{n}``: a larger one makes the automaton too large."""

_SPECIAL = re.compile(
    r"""\\(?P<escape>.)
    | \(\?(?P<group> <?[=!] | P?< | P[=>] | [^:] )
    | (?P<repeats> \{ [0-9,]* \} )""",
    re.VERBOSE | re.DOTALL,
)
_UNSUPPORTED_ESCAPES = {
    **dict.fromkeys("bB", "word boundaries"),
    **dict.fromkeys("123456789k", "back references"),
    **dict.fromkeys("AZzG", "anchors other than ^ and $"),
}
_UNICODE_PROPERTIES = dict.fromkeys("pPX", "Unicode properties")


_LOOK_AHEAD = re.compile(r"\(\?[=!]")
_LOOK_BEHIND = re.compile(r"\(\?<([=!])((?:\\.|[^()\\])*)\)\$\Z", re.DOTALL)
"""Look-behind at the end of a pattern."""
_SKIPPED = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]", re.DOTALL)
"""An escape or a class of characters, in which parentheses have no meaning."""


def plain_patterns(pattern: str) -> list[dict[str, Any]]:
    """Return schemas with patterns without look-around, all of which a text must satisfy.

    Each is a ``pattern`` or ``not`` a ``pattern``; the first one is a ``pattern``. Of several alternatives,
    those that need look-around are dropped if others remain. Raise `SchemaError` if the pattern can't be
    expressed, or needs more than a finite automaton of reasonable size.
    """
    try:
        return _plain_patterns(without_dialect(pattern))
    except RequestError as error:
        raise unsupported("pattern", error.message) from None


def _plain_patterns(pattern: str) -> list[dict[str, Any]]:
    alternatives = _split(pattern)
    if plain := [each for each in alternatives if _is_plain(each)]:
        return [{"pattern": "|".join(plain)}]
    schemas = _without_look_around(alternatives[0])
    for each in schemas:
        check_pattern(each.get("not", each)["pattern"], unicode_properties=True)
    return schemas


def check_pattern(pattern: str, *, unicode_properties: bool = False) -> None:
    """Raise `RequestError` for features that need more than a finite automaton of reasonable size."""
    escapes = _UNSUPPORTED_ESCAPES if unicode_properties else _UNSUPPORTED_ESCAPES | _UNICODE_PROPERTIES
    for match in _SPECIAL.finditer(pattern):
        if (escape := match["escape"]) in escapes:
            raise _unsupported(pattern, f"{escapes[escape]} (\\{escape})")
        if (group := match["group"]) and group not in ("<", "P<"):
            what = "look-around" if group[-1] in "=!" else "flags and special groups"
            raise _unsupported(pattern, f"{what} ((?{group})")
        if (repeats := match["repeats"]) and any(
            int(number) > MAX_REPEATS for number in re.findall("[0-9]{1,9}", repeats)
        ):
            raise _unsupported(pattern, f"more than {MAX_REPEATS} repeats ({repeats})")


def _is_plain(pattern: str) -> bool:
    try:
        check_pattern(pattern, unicode_properties=True)
    except RequestError:
        return False
    return True


def _without_look_around(pattern: str) -> list[dict[str, Any]]:
    """Turn look-ahead at the beginning and look-behind at the end into patterns of their own."""
    schemas: list[dict[str, Any]] = []
    position = 1
    while pattern.startswith("^") and (match := _LOOK_AHEAD.match(pattern, position)):
        end = _closing(pattern, match.end())
        schemas.append(_holds_or_not(f"^(?:{pattern[match.end() : end]})", match[0][-1]))
        position = end + 1
    pattern = f"^{pattern[position:]}" if schemas else pattern
    if match := _LOOK_BEHIND.search(pattern):
        schemas.append(_holds_or_not(f"(?:{match[2]})$", match[1]))
        pattern = f"{pattern[: match.start()]}$"
    return [{"pattern": pattern}, *schemas]


def _holds_or_not(pattern: str, sign: str) -> dict[str, Any]:
    return {"pattern": pattern} if sign == "=" else {"not": {"pattern": pattern}}


def _split(pattern: str) -> list[str]:
    """Return the alternatives at the top level of a pattern."""
    parts, depth, begin = [], 0, 0
    for position, character in _structure(pattern, 0):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "|" and depth == 0:
            parts.append(pattern[begin:position])
            begin = position + 1
    return [*parts, pattern[begin:]]


def _closing(pattern: str, position: int) -> int:
    """Return the position of the parenthesis that closes the group around ``position``."""
    depth = 1
    for found, character in _structure(pattern, position):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return found
    raise _unsupported(pattern, "a group without its end")


def _structure(pattern: str, position: int) -> Iterator[tuple[int, str]]:
    """Yield the positions of all parentheses and bars that are not quoted."""
    while position < len(pattern):
        if match := _SKIPPED.match(pattern, position):
            position = match.end()
            continue
        if pattern[position] in "()|":
            yield position, pattern[position]
        position += 1


def _unsupported(pattern: str, what: str) -> RequestError:
    shown = pattern if len(pattern) <= 80 else f"{pattern[:80]}..."
    return RequestError(
        f"unsupported pattern {shown!r}: {what} are not supported", code="unsupported_pattern"
    )
