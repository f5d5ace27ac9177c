"""Patterns, written again in what the regular expressions of all libraries have in common."""

from __future__ import annotations

from fllm import RequestError
from fllm_backends.grammars.patterns import (
    CharClass,
    Node,
    Ranges,
    RegexAlternation,
    RegexRepeat,
    RegexSequence,
    without,
)

_ESCAPED = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}
"""Characters that stand in a JSON string only behind a backslash, and what stands there."""
_BARRED: Ranges = ((0, 31), (34, 34), (92, 92))


def regex(node: Node, *, in_json: bool) -> str:
    """A pattern for a whole text; ``in_json``: as it stands between the quotes of a JSON string.

    Raises `RequestError` for one that matches nothing which can be written.
    """
    match node:
        case CharClass(ranges=ranges):
            return _in_json(ranges) if in_json else _class(ranges)
        case RegexSequence(parts=parts):
            return f"({''.join(regex(part, in_json=in_json) for part in parts)})"
        case RegexAlternation(options=options):
            return f"({'|'.join(regex(option, in_json=in_json) for option in options)})"
        case RegexRepeat(item=item, least=least, most=most):
            return f"({regex(item, in_json=in_json)}){_times(least, most)}"


def _in_json(ranges: Ranges) -> str:
    """What needs no escape has none, so that no two texts are the same string."""
    raw = without(ranges, _BARRED)
    options = [_class(raw)] if raw else []
    for code, escape in _ESCAPED.items():
        if any(low <= code <= high for low, high in ranges):
            options.append("\\\\" + _character(ord(escape)))
    if not options:
        raise _nothing()
    return options[0] if len(options) == 1 else f"({'|'.join(options)})"


def _class(ranges: Ranges) -> str:
    if not ranges:
        raise _nothing()
    return f"[{''.join(_range(low, high) for low, high in ranges)}]"


def _nothing() -> RequestError:
    return RequestError("the pattern matches nothing that can be written", code="unsupported_pattern")


def _range(low: int, high: int) -> str:
    return _character(low) if low == high else f"{_character(low)}-{_character(high)}"


def _character(code: int) -> str:
    # xgrammar takes any hexadecimal digits that follow for a part of the escape: none ever follows.
    return chr(code) if code > 127 else f"\\x{code:02x}"


def _times(least: int, most: int | None) -> str:
    if most is None:
        return ("*", "+")[least] if least < 2 else f"{{{least},}}"
    return f"{{{least},{most}}}"
