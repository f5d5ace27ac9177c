"""A scanner of one JSON object that is fed in pieces of any size."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable

from fllm.parsing.body_scanner import MAX_DEPTH, MAX_NUMBER_LENGTH, ScanState, match_end

_SPACE = re.compile(r"[ \t\n\r]*+")
_PLAIN = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]*+')
_WORD = re.compile(r"[-+.0-9A-Za-z]*+")
_SCALAR = re.compile(r"[Tt]rue|[Ff]alse|null|None|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?")

PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
"""Words of Python, and what they are in JSON."""

_KEY_OR_END = '"}'
_VALUE = '"{[-0123456789tfnTFN'
_VALUE_OR_END = _VALUE + "]"


class JsonScanner:
    """Reads one object up to its closing brace, or up to the first character that JSON does not allow there.

    Models write line breaks, and backslashes of patterns and paths, within strings: in a value, control
    characters and backslashes without a meaning in JSON are accepted, and escaped in `json_text`; a backslash
    before an apostrophe is dropped there. So is a comma before a closing bracket, and ``True``, ``False`` and
    ``None`` become what JSON calls them. Nesting uses a stack instead of recursion, and each character is
    read once. The result depends on the text alone, not on how it was divided.
    """

    def __init__(self) -> None:
        self.state: ScanState = "open"
        self.length = 0
        """Number of characters read so far; the length of the object once it is complete."""
        self.object_starts: list[int] = []
        """Where the object, and each object within it, begins."""
        self.bounds: list[int] = []
        """Where each member of the outermost object stands: begin and end of its key, then of its value."""
        self.closable = 0
        """Where the text can be cut off: what precedes becomes JSON if `closing` follows."""
        self._pieces: list[str] = []
        self._edits: list[tuple[int, int, str]] = []
        """What `json_text` replaces: begin, end and replacement, in order."""
        self._control_end = 0
        """Where the last control character within a string ends."""
        self._stack: list[str] = []
        self._read: Callable[[str, int], int] = self._structure
        self._expected = "{"
        self._in_key = self._in_string = False
        self._comma: int | None = None
        """Where the comma stands that was the last token."""
        self._escape_start = self._digits = 0
        self._word = ""
        self._shift = 0

    @property
    def text(self) -> str:
        """The text that has been read."""
        return "".join(self._pieces)

    def json_text(self, start: int, end: int) -> str:
        """Return a part of the text, with what JSON does not allow replaced.

        The time depends on the length of the text from ``start`` on, not on what precedes it.
        """
        position, pieces = self.length, list[str]()
        for piece in reversed(self._pieces):
            if position <= start:
                break
            position -= len(piece)
            pieces.append(piece)
        text = "".join(reversed(pieces))[start - position : end - position]
        parts, begin = list[str](), start
        for edit_start, edit_end, replacement in self._edits[bisect_left(self._edits, (start,)) :]:
            if edit_start >= end:
                break
            parts += text[begin - start : edit_start - start], replacement
            begin = edit_end
        return "".join([*parts, text[begin - start :]])

    @property
    def ends_with_control(self) -> bool:
        """Whether the text ends within a string, after a control character, such as a line break."""
        return 0 < self._control_end == self.length

    def closing(self, depth: int = 0) -> str:
        """Return what ends the text at `closable`: a quote and the brackets of all but ``depth`` levels."""
        quote = '"' if self._in_string and not self._in_key else ""
        return quote + "".join("}" if each == "{" else "]" for each in reversed(self._stack[depth:]))

    @property
    def spans(self) -> list[tuple[slice, slice]]:
        """Where in `text` the key and the value of each complete member of the outermost object stand."""
        bounds = iter(self.bounds)
        quadruples = zip(bounds, bounds, bounds, bounds, strict=False)
        return [(slice(a, b), slice(c, d)) for a, b, c, d in quadruples]

    @property
    def members(self) -> dict[str, str]:
        """The JSON text of each complete member's value, by key; the last value of a repeated key counts."""
        return {
            json.loads(self.json_text(key.start, key.stop)): self.json_text(value.start, value.stop)
            for key, value in self.spans
        }

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
        if text[position] not in self._expected:
            return self._break(position)
        return self._accept(text[position], position)

    def _break(self, position: int) -> int:
        self.state = "broken"
        return position

    def _accept(self, char: str, position: int) -> int:
        if char == '"':
            self._in_key = self._expected == _KEY_OR_END
            self._in_string = not self._in_key
            self._mark_bound(position)
            self._read = self._string
            self._mark_closable(position + 1)
        elif char in "{[":
            return self._open(char, position)
        elif char in "}]":
            if self._comma is not None:
                self._edits.append((self._comma, self._comma + 1, ""))
            self._stack.pop()
            self._end_token(position + 1)
        elif char == ":":
            self._expected = _VALUE
        elif char == ",":
            self._expected = _KEY_OR_END if self._stack[-1] == "{" else _VALUE_OR_END
            self._comma = position + self._shift
            return position + 1
        else:
            self._mark_bound(position)
            self._word = char
            self._read = self._scalar
        self._comma = None
        return position + 1

    def _open(self, char: str, position: int) -> int:
        if len(self._stack) == MAX_DEPTH:
            return self._break(position)
        self._mark_bound(position)
        self._stack.append(char)
        self._expected = _KEY_OR_END if char == "{" else _VALUE_OR_END
        if char == "{":
            self.object_starts.append(position + self._shift)
        self._comma = None
        self._mark_closable(position + 1)
        return position + 1

    def _end_token(self, position: int) -> None:
        """Continue after a key or a value, which ends before ``position``."""
        self._read = self._structure
        self._in_string = False
        self._mark_bound(position)
        self._mark_closable(position)
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
            self.bounds.append(position + self._shift)

    def _mark_closable(self, position: int) -> None:
        if not self._in_key:
            self.closable = position + self._shift

    def _string(self, text: str, position: int) -> int:
        position = match_end(_PLAIN, text, position)
        self._mark_closable(position)
        if position == len(text):
            return position
        char = text[position]
        if char == '"':
            self._end_token(position + 1)
        elif char == "\\":
            self._escape_start = position + self._shift
            self._read = self._escape
        elif char < " " and self._in_string:
            self._control_end = position + self._shift + 1
            self._edits.append((self._control_end - 1, self._control_end, json.dumps(char)[1:-1]))
            self._mark_closable(position + 1)
        else:
            return self._break(position)
        return position + 1

    def _escape(self, text: str, position: int) -> int:
        if text[position] == "u":
            self._digits = 4
            self._read = self._hexadecimal
        elif text[position] in '"\\/bfnrt':
            self._read = self._string
        else:
            return self._no_escape(text, position)
        return position + 1

    def _no_escape(self, text: str, position: int) -> int:
        """Continue after a backslash without a meaning, such as that of a pattern or path."""
        if self._in_key:
            return self._break(position)
        after = self._escape_start + 1
        is_quote = text[position] == "'" and position + self._shift == after
        self._edits.append((self._escape_start, after, "" if is_quote else "\\\\"))
        self._read = self._string
        return position

    def _hexadecimal(self, text: str, position: int) -> int:
        if text[position] not in "0123456789abcdefABCDEF":
            return self._no_escape(text, position)
        self._digits -= 1
        if not self._digits:
            self._read = self._string
        return position + 1

    def _scalar(self, text: str, position: int) -> int:
        end = match_end(_WORD, text, position)
        self._word += text[position : min(end, position + MAX_NUMBER_LENGTH)]
        if len(self._word) > MAX_NUMBER_LENGTH:
            return self._break(position)
        if end < len(text):
            if not _SCALAR.fullmatch(self._word):
                return self._break(position)
            if (word := PYTHON_WORDS.get(self._word)) is not None:
                end_offset = end + self._shift
                self._edits.append((end_offset - len(self._word), end_offset, word))
            self._end_token(end)
        return end
