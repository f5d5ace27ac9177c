"""Regular expressions, read once for all libraries: each has its own idea of classes, anchors and quotes.

What is read is what all have in common: no look-around, no back references.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as sre  # type: ignore[attr-defined]  # the parser of patterns has no public name
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from msgspec import Struct

from fllm import RequestError
from fllm.structured_output.json_schema.patterns import check_pattern

MAX_WEIGHT = 5000
"""Characters of the longest text that a pattern must tell apart, as it were with all repeats written out."""

Ranges = tuple[tuple[int, int], ...]
"""First and last code points, in order."""


class CharClass(Struct, frozen=True):
    """One character of these."""

    ranges: Ranges


class RegexSequence(Struct, frozen=True):
    """One after the other."""

    parts: tuple[Node, ...]


class RegexAlternation(Struct, frozen=True):
    """Any of them."""

    options: tuple[Node, ...]


class RegexRepeat(Struct, frozen=True):
    """The same again and again; ``most`` ``None``: no limit."""

    item: Node
    least: int
    most: int | None


Node = CharClass | RegexSequence | RegexAlternation | RegexRepeat

EVERY: Ranges = ((0, 0xD7FF), (0xE000, 0x10FFFF))
ANY_TEXT = RegexRepeat(CharClass(EVERY), 0, None)

_DIGIT: Ranges = ((0x30, 0x39),)
_WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Ranges = ((9, 13), (32, 32))
_ASCII: Ranges = ((0, 127),)
_ALL_SPACES: Ranges = (
    *((0, 32), (0x7F, 0xA0), (0x1680, 0x1680), (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x205F)),
    *((0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)


def read_pattern(pattern: str, *, whole: bool) -> Node:
    """A pattern; where it is not ``whole``, text may stand before and after unless ``^`` and ``$`` forbid it.

    Raises `RequestError` for what is not supported, or too large.
    """
    check_pattern(pattern)
    try:
        parsed = _parser.parse(re.sub(r"\(\?<(?![=!])", "(?P<", pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise RequestError(f"the pattern can't be read: {error}") from None
    try:
        node = _anchored(list(parsed), whole)
    except RecursionError:
        raise RequestError("the pattern is nested too deep") from None
    if _weight(node) > MAX_WEIGHT:
        raise RequestError("the pattern is too large, with all its repeats")
    return node


def without(ranges: Ranges, others: Ranges) -> Ranges:
    """What is in the first and not in the second."""
    found = []
    for low, high in ranges:
        for first, last in others:
            if last < low or first > high:
                continue
            if first > low:
                found.append((low, first - 1))
            low = last + 1
        if low <= high:
            found.append((low, high))
    return tuple(found)


def _anchored(parts: list[Any], whole: bool) -> Node:
    """The alternatives at the top may each have anchors of their own."""
    if len(parts) == 1 and parts[0][0] is sre.BRANCH:
        return RegexAlternation(tuple(_anchored(list(option), whole) for option in parts[0][1][1]))
    begins = bool(parts) and parts[0] == (sre.AT, sre.AT_BEGINNING)
    ends = len(parts) > begins and parts[-1] == (sre.AT, sre.AT_END)
    inner = [_node(*part) for part in parts[begins : len(parts) - ends]]
    before = [] if begins or whole else [ANY_TEXT]
    after = [] if ends or whole else [ANY_TEXT]
    return RegexSequence((*before, *inner, *after))


def _node(kind: Any, value: Any) -> Node:
    match kind:
        case sre.LITERAL:
            return CharClass(((value, value),))
        case sre.NOT_LITERAL:
            return CharClass(without(EVERY, ((value, value),)))
        case sre.ANY:
            return CharClass(without(EVERY, ((10, 10), (13, 13), (0x2028, 0x2029))))
        case sre.IN:
            return CharClass(_class(value))
        case sre.BRANCH:
            return RegexAlternation(tuple(_sequence(option) for option in value[1]))
        case sre.SUBPATTERN:
            return _sequence(value[3])
        case sre.MAX_REPEAT | sre.MIN_REPEAT:
            least, most, item = value
            return RegexRepeat(_sequence(item), least, None if most is sre.MAXREPEAT else most)
    what = "an anchor in its middle" if kind is sre.AT else f"{str(kind).lower()}, which is not supported"
    raise RequestError(f"the pattern has {what}", code="unsupported_pattern")


def _sequence(parts: Iterable[Any]) -> Node:
    nodes = tuple(_node(*part) for part in parts)
    return nodes[0] if len(nodes) == 1 else RegexSequence(nodes)


def _class(items: list[Any]) -> Ranges:
    negated = items[0][0] is sre.NEGATE
    ranges: list[tuple[int, int]] = []
    for kind, value in items[negated:]:
        match kind:
            case sre.LITERAL:
                ranges.append((value, value))
            case sre.RANGE:
                ranges.append(value)
            case sre.CATEGORY:
                ranges += _category(value)
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return without(EVERY, tuple(merged)) if negated else without(tuple(merged), ((0xD800, 0xDFFF),))


def _category(name: Any) -> Ranges:
    """In ASCII, as ECMAScript has it. Of the negated ones, only what is meant by Python and Rust as well."""
    return {
        sre.CATEGORY_DIGIT: _DIGIT,
        sre.CATEGORY_NOT_DIGIT: without(_ASCII, _DIGIT),
        sre.CATEGORY_WORD: _WORD,
        sre.CATEGORY_NOT_WORD: without(_ASCII, _WORD),
        sre.CATEGORY_SPACE: _SPACE,
        sre.CATEGORY_NOT_SPACE: without(EVERY, _ALL_SPACES),
    }[name]


def _weight(node: Node) -> int:
    match node:
        case CharClass():
            return 1
        case RegexSequence(parts=several) | RegexAlternation(options=several):
            return 1 + sum(map(_weight, several))
        case RegexRepeat(item=item, least=least, most=most):
            return _weight(item) * max(least, most or 1)
