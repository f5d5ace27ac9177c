"""A strict scanner of one JSON object that is fed in pieces of any size."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from fllm.parsing.body_scanner import MAX_DEPTH, MAX_NUMBER_LENGTH, ScanState, match_end

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

    Nesting uses a stack instead of recursion, and each character is read once. The result depends on the text
    alone, not on how it was divided.
    """

    def __init__(self) -> None:
        self.state: ScanState = "open"
        self.length = 0
        """Number of characters read so far; the length of the object once it is complete."""
        self.object_starts: list[int] = []
        """Where the object, and each object within it, begins."""
        self._pieces: list[str] = []
        self._bounds: list[int] = []
        self._stack: list[str] = []
        self._read: Callable[[str, int], int] = self._structure
        self._expected = "{"
        self._in_key = False
        self._digits = 0
        self._word = ""
        self._shift = 0

    @property
    def text(self) -> str:
        """The text that has been read."""
        return "".join(self._pieces)

    @property
    def spans(self) -> list[tuple[slice, slice]]:
        """Where in `text` the key and the value of each complete member of the outermost object stand."""
        bounds = iter(self._bounds)
        quadruples = zip(bounds, bounds, bounds, bounds, strict=False)
        return [(slice(a, b), slice(c, d)) for a, b, c, d in quadruples]

    @property
    def members(self) -> dict[str, str]:
        """The JSON text of each complete member's value, by key; the last value of a repeated key counts."""
        text = self.text
        return {json.loads(text[key]): text[value] for key, value in self.spans}

    def feed(self, text: str, start: int = 0) -> None:
        """Read on from index ``start`` of ``text``, until the object ends or breaks or the text ends."""
        self._shift = self.length - start
        position = start
        while position < len(text) and self.state == "open":
            position = self._read(text, position)
        self.length += position - start
        self._pieces.append(text[start:position])

    def _structure(self, text: str, position: int) -> int:
        position = match_end(_SPACE, text, position)
        if position == len(text):
            return position
        if text[position] in self._expected:
            self._accept(text[position], position)
        else:
            self.state = "broken"
        return position + 1

    def _accept(self, char: str, position: int) -> None:
        if char == '"':
            self._in_key = self._expected in (_KEY, _KEY_OR_END)
            self._mark_bound(position)
            self._read = self._string
        elif char in "{[":
            self._open(char, position)
        elif char in "}]":
            self._stack.pop()
            self._end_token(position + 1)
        elif char == ":":
            self._expected = _VALUE
        elif char == ",":
            self._expected = _KEY if self._stack[-1] == "{" else _VALUE
        else:
            self._mark_bound(position)
            self._word = char
            self._read = self._scalar

    def _open(self, char: str, position: int) -> None:
        if len(self._stack) == MAX_DEPTH:
            self.state = "broken"
            return
        self._mark_bound(position)
        self._stack.append(char)
        self._expected = _KEY_OR_END if char == "{" else _VALUE_OR_END
        if char == "{":
            self.object_starts.append(position + self._shift)

    def _end_token(self, position: int) -> None:
        """Continue after a key or a value, which ends before ``position``."""
        self._read = self._structure
        self._mark_bound(position)
        if not self._stack:
            self.state = "complete"
        elif self._in_key:
            self._in_key = False
            self._expected = ":"
        else:
            self._expected = ",}" if self._stack[-1] == "{" else ",]"

    def _mark_bound(self, position: int) -> None:
        """Record where a key or value of the outermost object begins or ends."""
        if len(self._stack) == 1:
            self._bounds.append(position + self._shift)

    def _string(self, text: str, position: int) -> int:
        position = match_end(_PLAIN, text, position)
        if position == len(text):
            return position
        if text[position] == '"':
            self._end_token(position + 1)
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
        end = match_end(_WORD, text, position)
        self._word += text[position : min(end, position + MAX_NUMBER_LENGTH)]
        if len(self._word) > MAX_NUMBER_LENGTH:
            self.state = "broken"
        elif end < len(text):
            if _SCALAR.fullmatch(self._word):
                self._end_token(end)
            else:
                self.state = "broken"
        return end
