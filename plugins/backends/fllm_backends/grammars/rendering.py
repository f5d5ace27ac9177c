"""Render patterns in the regular expression syntax that all grammar libraries share."""

from __future__ import annotations

from fllm import RequestError
from fllm_backends.grammars.patterns import (
    CharClass,
    Node,
    Ranges,
    RegexAlternation,
    RegexRepeat,
    RegexSequence,
    subtract,
)

_ESCAPES = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}
"""Characters that a JSON string contains only as escapes, with the character after the backslash."""
_MUST_ESCAPE: Ranges = ((0, 31), (34, 34), (92, 92))


def render_regex(node: Node, *, in_json: bool) -> str:
    """Return a regular expression for a whole text; ``in_json``: for the inside of a JSON string.

    Raise `RequestError` if the pattern matches no text that can be written.
    """
    match node:
        case CharClass(ranges=ranges):
            return _json_class(ranges) if in_json else _class(ranges)
        case RegexSequence(parts=parts):
            return f"({''.join(render_regex(part, in_json=in_json) for part in parts)})"
        case RegexAlternation(options=options):
            return f"({'|'.join(render_regex(option, in_json=in_json) for option in options)})"
        case RegexRepeat(item=item, min_count=min_count, max_count=max_count):
            return f"({render_regex(item, in_json=in_json)}){_quantifier(min_count, max_count)}"


def _json_class(ranges: Ranges) -> str:
    """Escape only what JSON requires, so that each string has exactly one text."""
    raw = subtract(ranges, _MUST_ESCAPE)
    options = [_class(raw)] if raw else []
    for code, escape in _ESCAPES.items():
        if any(low <= code <= high for low, high in ranges):
            options.append("\\\\" + _character(ord(escape)))
    if not options:
        raise _unmatchable()
    return options[0] if len(options) == 1 else f"({'|'.join(options)})"


def _class(ranges: Ranges) -> str:
    if not ranges:
        raise _unmatchable()
    return f"[{''.join(_range(low, high) for low, high in ranges)}]"


def _unmatchable() -> RequestError:
    return RequestError("the pattern matches no text that can be written", code="unsupported_pattern")


def _range(low: int, high: int) -> str:
    return _character(low) if low == high else f"{_character(low)}-{_character(high)}"


def _character(code: int) -> str:
    # xgrammar reads all following hexadecimal digits as part of the escape, so none may follow.
    return chr(code) if code > 127 else f"\\x{code:02x}"


def _quantifier(min_count: int, max_count: int | None) -> str:
    if max_count is None:
        return ("*", "+")[min_count] if min_count < 2 else f"{{{min_count},}}"
    return f"{{{min_count},{max_count}}}"
