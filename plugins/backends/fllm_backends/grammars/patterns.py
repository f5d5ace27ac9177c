"""Parse regular expressions into a tree that is independent of the grammar library.

Libraries differ in character classes, anchors and quoting. The tree has the features that all of them
support: no look-around, no back references.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as sre  # type: ignore[attr-defined]  # the pattern parser has no public name
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from msgspec import Struct

from fllm import RequestError
from fllm.structured_output.json_schema.patterns import check_pattern

MAX_WEIGHT = 5000
"""Maximum number of characters in a pattern after all repeats are expanded."""

Ranges = tuple[tuple[int, int], ...]
"""First and last code points of each range, in ascending order."""


class CharClass(Struct, frozen=True):
    """Any one character of the ranges."""

    ranges: Ranges


class RegexSequence(Struct, frozen=True):
    """The parts, one after the other."""

    parts: tuple[Node, ...]


class RegexAlternation(Struct, frozen=True):
    """Any one of the options."""

    options: tuple[Node, ...]


class RegexRepeat(Struct, frozen=True):
    """The item, repeated. A ``max_count`` of ``None`` means no limit."""

    item: Node
    min_count: int
    max_count: int | None


Node = CharClass | RegexSequence | RegexAlternation | RegexRepeat

ANY_CHARACTER: Ranges = ((0, 0xD7FF), (0xE000, 0x10FFFF))
ANY_TEXT = RegexRepeat(CharClass(ANY_CHARACTER), 0, None)

_BEGINNING = (sre.AT, sre.AT_BEGINNING)
_END = (sre.AT, sre.AT_END)
_GROUPS = (sre.BRANCH, sre.SUBPATTERN)

_DIGIT: Ranges = ((0x30, 0x39),)
_WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Ranges = ((9, 13), (32, 32))
_ASCII: Ranges = ((0, 127),)
_ALL_SPACES: Ranges = (
    *((0, 32), (0x7F, 0xA0), (0x1680, 0x1680), (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x205F)),
    *((0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)


def parse_pattern(pattern: str, *, full_match: bool) -> Node:
    """Parse a pattern. Unless ``full_match``, other text may surround a match, except at ``^`` and ``$``.

    Raise `RequestError` if the pattern is invalid, not supported, or too large.
    """
    check_pattern(pattern)
    try:
        parsed = _parser.parse(re.sub(r"\(\?<(?![=!])", "(?P<", pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise RequestError(f"invalid pattern: {error}") from None
    try:
        node = _anchored(list(parsed), full_match, full_match)
    except RecursionError:
        raise RequestError("the pattern is nested too deeply") from None
    if _weight(node) > MAX_WEIGHT:
        raise RequestError("the pattern is too large after its repeats are expanded")
    return node


def matches(node: Node, text: str) -> bool:
    """Return whether a parsed pattern matches the whole text. It takes no more than polynomial time."""
    return len(text) in _ends(node, text, {0})


def _ends(node: Node, text: str, starts: set[int]) -> set[int]:
    """Return the positions at which a match that begins at one of ``starts`` may end."""
    match node:
        case CharClass(ranges=ranges):
            return {
                start + 1
                for start in starts
                if start < len(text) and any(low <= ord(text[start]) <= high for low, high in ranges)
            }
        case RegexSequence(parts=parts):
            for part in parts:
                starts = _ends(part, text, starts)
            return starts
        case RegexAlternation(options=options):
            return {end for option in options for end in _ends(option, text, starts)}
        case RegexRepeat(item=item, min_count=min_count, max_count=max_count):
            for _ in range(min_count):
                starts = _ends(item, text, starts)
            reached = set(starts)
            for _ in range(len(text) if max_count is None else max_count - min_count):
                starts = _ends(item, text, starts) - reached
                reached |= starts
            return reached


def subtract(ranges: Ranges, others: Ranges) -> Ranges:
    """Return the characters that are in ``ranges`` but not in ``others``."""
    remaining = []
    for low, high in ranges:
        for first, last in others:
            if last < low or first > high:
                continue
            if first > low:
                remaining.append((low, first - 1))
            low = last + 1
        if low <= high:
            remaining.append((low, high))
    return tuple(remaining)


def _anchored(
    parts: list[Any], begins: bool, ends: bool, *, is_first: bool = True, is_last: bool = True
) -> Node:
    """Convert a part of a pattern with anchors at its ends; each alternative at an end may have its own.

    ``begins`` and ``ends``: no other text may come before or after it. ``is_first`` and ``is_last``: no other
    part does.
    """
    if is_first and parts[:1] == [_BEGINNING]:
        parts, begins = parts[1:], True
    if is_last and parts[-1:] == [_END]:
        parts, ends = parts[:-1], True
    if len(parts) == 1 and parts[0][0] in _GROUPS:
        kind, value = parts[0]
        options = value[1] if kind is sre.BRANCH else [value[3]]
        nodes = tuple(
            _anchored(list(option), begins, ends, is_first=is_first, is_last=is_last) for option in options
        )
        return nodes[0] if len(nodes) == 1 else RegexAlternation(nodes)
    before = [] if begins else [ANY_TEXT]
    after = [] if ends else [ANY_TEXT]
    if len(parts) > 1:
        inner = (_node(*part) for part in parts[1:-1])
        first = _anchored(parts[:1], begins, True, is_first=is_first, is_last=False)
        last = _anchored(parts[-1:], True, ends, is_first=False, is_last=is_last)
        return RegexSequence((first, *inner, last))
    return RegexSequence((*before, *(_node(*part) for part in parts), *after))


def _node(kind: Any, value: Any) -> Node:
    match kind:
        case sre.LITERAL:
            return CharClass(((value, value),))
        case sre.NOT_LITERAL:
            return CharClass(subtract(ANY_CHARACTER, ((value, value),)))
        case sre.ANY:
            return CharClass(subtract(ANY_CHARACTER, ((10, 10), (13, 13), (0x2028, 0x2029))))
        case sre.IN:
            return CharClass(_class(value))
        case sre.BRANCH:
            return RegexAlternation(tuple(_sequence(option) for option in value[1]))
        case sre.SUBPATTERN:
            return _sequence(value[3])
        case sre.MAX_REPEAT | sre.MIN_REPEAT:
            min_count, max_count, item = value
            return RegexRepeat(_sequence(item), min_count, None if max_count is sre.MAXREPEAT else max_count)
    what = "an anchor inside the pattern" if kind is sre.AT else str(kind).lower()
    raise RequestError(f"unsupported feature in the pattern: {what}", code="unsupported_pattern")


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
    return subtract(ANY_CHARACTER, tuple(merged)) if negated else subtract(tuple(merged), ((0xD800, 0xDFFF),))


def _category(name: Any) -> Ranges:
    """Return a category's characters in ASCII, as in ECMAScript.

    Negated categories have only the characters on which Python and Rust agree.
    """
    return {
        sre.CATEGORY_DIGIT: _DIGIT,
        sre.CATEGORY_NOT_DIGIT: subtract(_ASCII, _DIGIT),
        sre.CATEGORY_WORD: _WORD,
        sre.CATEGORY_NOT_WORD: subtract(_ASCII, _WORD),
        sre.CATEGORY_SPACE: _SPACE,
        sre.CATEGORY_NOT_SPACE: subtract(ANY_CHARACTER, _ALL_SPACES),
    }[name]


def _weight(node: Node) -> int:
    match node:
        case CharClass():
            return 1
        case RegexSequence(parts=several) | RegexAlternation(options=several):
            return 1 + sum(map(_weight, several))
        case RegexRepeat(item=item, min_count=min_count, max_count=max_count):
            return _weight(item) * max(min_count, max_count or 1)
