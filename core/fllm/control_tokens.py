"""Mark control tokens in the text of messages, so that they are encoded as text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

MARK = "\U000e01ef"
"""Follows the first character of what would be a control token.

It is the last variation selector, which no text needs. It is printable, so `repr` keeps it.
"""
PREFIX_LENGTH = 3
"""Number of characters of a control token that are enough to mark it.

A template may shorten or join texts, so a token is not marked only where it is complete.
"""
_MARKS = re.compile(f"{MARK}({MARK}?)")


class ControlTokenEscaper:
    """Marks control tokens in texts. A marked text is encoded without them; see `Tokenizer.encode`.

    ``removable`` are strings that a template may cut out of a text, so that what is around them is joined.
    """

    def __init__(self, tokens: Collection[str], removable: Collection[str] = ()) -> None:
        self._pattern = re.compile(_pattern(tokens, removable)) if tokens else None

    def escape(self, text: str) -> str:
        """Return the text with a mark in each control token, and in what may be the beginning of one."""
        text = escape_marks(text)
        return text if self._pattern is None else self._pattern.sub(_mark, text)

    def escape_values(self, value: Any) -> Any:
        """Return a value of JSON in which all strings are escaped, keys included."""
        # Without recursion, since a client may nest values as deeply as the JSON decoder allows.
        result: list[Any] = [value]
        places: list[tuple[Any, Any]] = [(result, 0)]
        while places:
            container, key = places.pop()
            match container[key]:
                case str(text):
                    container[key] = self.escape(text)
                case Mapping() as items:
                    container[key] = copy = {self.escape(name): item for name, item in items.items()}
                    places += [(copy, name) for name in copy]
                case list() | tuple() as items:
                    container[key] = [*items]
                    places += [(container[key], i) for i in range(len(items))]
        return result[0]


def escape_marks(text: str) -> str:
    """Return the text with its own marks doubled, so that they are characters like all others."""
    return text.replace(MARK, MARK * 2)


def unescape(text: str) -> str:
    """Return the text as it was before its control tokens were marked."""
    return _MARKS.sub(r"\1", text) if MARK in text else text


def split_at_marks(text: str) -> Iterable[str]:
    """Yield the unescaped pieces of a text between its marks."""
    start, piece = 0, ""
    for match in _MARKS.finditer(text):
        piece += text[start : match.start()] + match[1]
        start = match.end()
        if not match[1]:
            yield piece
            piece = ""
    yield piece + text[start:]


def _mark(match: re.Match[str]) -> str:
    return match[0] + MARK


def _pattern(tokens: Collection[str], removable: Collection[str]) -> str:
    """Return a pattern for the first characters of control tokens.

    One that is followed by the end of the text, white space aside, may become a token if the template trims
    the text and appends another; and likewise one before a string that the template cuts out.
    """
    ends = "|".join([r"\Z", *map(re.escape, sorted(filter(str.strip, removable)))])
    firsts: dict[str, set[str]] = {}
    for token in filter(None, tokens):
        firsts.setdefault(token[0], set()).add(token[1:PREFIX_LENGTH])
    options = []
    for first, rests in sorted(firsts.items()):
        partial = {rest[:length] for rest in rests for length in range(len(rest))}
        complete = "|".join(map(re.escape, sorted(rests)))
        at_end = "|".join(map(re.escape, sorted(partial)))
        unfinished = rf"|(?:{at_end})\s*+(?:{ends})" if partial else ""
        options.append(f"{re.escape(first)}(?={complete}{unfinished})")
    return "|".join(options)
