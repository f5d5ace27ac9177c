"""A strict recogniser of one JSON object, fed in pieces of any size."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

DEEPEST = 256
"""Levels of nesting; Python's own parser gives up at 1000."""
LONGEST = 512
"""Characters of a number; Python's parser refuses 4300 digits."""

_SPACE = re.compile(r"[ \t\n\r]*+")
_PLAIN = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]*+')
_WORD = re.compile(r"[-+.0-9A-Za-z]*+")
_SCALAR = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?")

_KEY = '"'
_KEY_OR_END = '"}'
_VALUE = '"{[-0123456789tfn'
_VALUE_OR_END = _VALUE + "]"


class JsonScanner:
    """Reads one object up to its closing brace, or up to the first character that JSON does not allow there.

    It keeps a stack of its own, so nesting costs no recursion, and looks at no character twice. The outcome
    depends on the text alone, never on how it was divided.
    """

    def __init__(self) -> None:
        self.state: Literal["open", "complete", "broken"] = "open"
        self.length = 0
        """Characters read so far; of a complete object, its length."""
        self.opened: list[int] = []
        """Where the object, and each one within it, begins."""
        self._bounds: list[int] = []
        self._stack: list[str] = []
        self._read: Callable[[str, int], int] = self._structure
        self._expected = "{"
        self._in_key = False
        self._digits = 0
        self._word = ""
        self._shift = 0

    @property
    def members(self) -> list[tuple[slice, slice]]:
        """Where key and value of each member of the outermost object lie, as far as it has been read."""
        bounds = iter(self._bounds)
        fours = zip(bounds, bounds, bounds, bounds, strict=False)
        return [(slice(a, b), slice(c, d)) for a, b, c, d in fours]

    def feed(self, text: str, start: int = 0) -> None:
        """Read on, from ``start`` in ``text``, until the object ends or breaks or the text does."""
        self._shift = self.length - start
        position = start
        while position < len(text) and self.state == "open":
            position = self._read(text, position)
        self.length += position - start

    def _structure(self, text: str, position: int) -> int:
        position = _end(_SPACE, text, position)
        if position == len(text):
            return position
        if text[position] in self._expected:
            self._take(text[position], position)
        else:
            self.state = "broken"
        return position + 1

    def _take(self, char: str, position: int) -> None:
        if char == '"':
            self._in_key = self._expected in (_KEY, _KEY_OR_END)
            self._bound(position)
            self._read = self._string
        elif char in "{[":
            self._open(char, position)
        elif char in "}]":
            self._stack.pop()
            self._ended(position + 1)
        elif char == ":":
            self._expected = _VALUE
        elif char == ",":
            self._expected = _KEY if self._stack[-1] == "{" else _VALUE
        else:
            self._bound(position)
            self._word = char
            self._read = self._scalar

    def _open(self, char: str, position: int) -> None:
        if len(self._stack) == DEEPEST:
            self.state = "broken"
            return
        self._bound(position)
        self._stack.append(char)
        self._expected = _KEY_OR_END if char == "{" else _VALUE_OR_END
        if char == "{":
            self.opened.append(position + self._shift)

    def _ended(self, position: int) -> None:
        """A key or a value ends before ``position``."""
        self._read = self._structure
        self._bound(position)
        if not self._stack:
            self.state = "complete"
        elif self._in_key:
            self._in_key = False
            self._expected = ":"
        else:
            self._expected = ",}" if self._stack[-1] == "{" else ",]"

    def _bound(self, position: int) -> None:
        if len(self._stack) == 1:
            self._bounds.append(position + self._shift)

    def _string(self, text: str, position: int) -> int:
        position = _end(_PLAIN, text, position)
        if position == len(text):
            return position
        if text[position] == '"':
            self._ended(position + 1)
        elif text[position] == "\\":
            self._read = self._escape
        else:
            self.state = "broken"
        return position + 1

    def _escape(self, text: str, position: int) -> int:
        if text[position] == "u":
            self._digits = 4
            self._read = self._hexadecimal
        elif text[position] in '"\\/bfnrt':
            self._read = self._string
        else:
            self.state = "broken"
        return position + 1

    def _hexadecimal(self, text: str, position: int) -> int:
        if text[position] not in "0123456789abcdefABCDEF":
            self.state = "broken"
        self._digits -= 1
        if not self._digits:
            self._read = self._string
        return position + 1

    def _scalar(self, text: str, position: int) -> int:
        end = _end(_WORD, text, position)
        self._word += text[position : min(end, position + LONGEST)]
        if len(self._word) > LONGEST:
            self.state = "broken"
        elif end < len(text):
            if _SCALAR.fullmatch(self._word):
                self._ended(end)
            else:
                self.state = "broken"
        return end


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    assert match is not None  # these patterns match the empty text
    return match.end()
