"""Scanners of Python calls with keyword arguments: ``get_weather(city='LA', days=[1, 2], metric=None)``."""

from __future__ import annotations

import math
import re
import unicodedata
from types import MappingProxyType

from fllm.parsing.body_scanner import MAX_NAME_LENGTH, match_end
from fllm.parsing.literal_scanner import LiteralScanner, Scope

_NAME = re.compile(r"[\w.-]*+")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*+\.?|\.[0-9])[0-9_]*+(?:[eE][-+]?[0-9_]++)?")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_ESCAPE = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|N\{[^{}]*\}|[0-7]{1,3}|[\s\S])")

# Includes the words of JSON: models mix the two up.
_CONSTANTS = {
    "True": "true",
    "False": "false",
    "None": "null",
    "true": "true",
    "false": "false",
    "null": "null",
}
_ESCAPED = {
    "\n": "",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "/": "/",  # JSON's
}


class PythonCallScanner(LiteralScanner):
    """A `BodyScanner` of one call."""

    outermost = Scope(")", "=")
    scopes = MappingProxyType(
        {"{": Scope("}", ":", may_be_list=True), "[": Scope("]"), "(": Scope(")", grouping=True)}
    )
    quotes = ("'''", '"""', "'", '"')
    word = key = re.compile(r"[^\s()\[\]{},:='\"]*+")

    def outside(self, text: str, position: int) -> int:
        """Read the name and the parenthesis after it."""
        end = match_end(_NAME, text, position)
        name = text[position:end]
        if end == len(text) and len(name) <= MAX_NAME_LENGTH:
            return position
        if not name or len(name) > MAX_NAME_LENGTH or text[end] != "(":
            return self.reject(position)
        self.begin(name)
        return end + 1

    def scalar(self, word: str) -> str | None:
        """Return the JSON of a constant or a number."""
        return _CONSTANTS.get(word) or number(word)

    def string(self, written: str, prefix: str) -> str | None:
        """Return the string as Python reads it."""
        if prefix in ("r", "R"):
            return written
        return unescape(written) if prefix in ("", "u", "U") else None


class PythonListScanner(PythonCallScanner):
    """A `BodyScanner` of calls with commas between them, up to the bracket that ends their list."""

    def __init__(self) -> None:
        super().__init__()
        self._after_call = False

    def closed(self) -> None:
        """Read on up to the closing bracket."""
        self._after_call = True

    def outside(self, text: str, position: int) -> int:
        """Read a call, or what follows one."""
        if self.calls and text[position] == "]":
            super().closed()
        elif self._after_call and text[position] == ",":
            self._after_call = False
        elif self._after_call:
            return self.reject(position)
        else:
            return super().outside(text, position)
        return position + 1


def number(word: str) -> str | None:
    """Return the JSON of a number in Python's notation, or with leading zeros; ``None`` if it is not one."""
    for base in (10, 0):
        try:
            return str(int(word, base))
        except ValueError:
            continue
    if not _FLOAT.fullmatch(word):
        return None
    if _JSON_NUMBER.fullmatch(word):
        return word
    try:
        value = float(word)
    except ValueError:
        return None
    return repr(value) if math.isfinite(value) else None


def unescape(written: str) -> str:
    """Replace the escapes of Python and JSON; leave anything else as it is."""
    return _ESCAPE.sub(_unescaped, written) if "\\" in written else written


def _unescaped(match: re.Match[str]) -> str:
    escape = match[0][1:]
    if escape in _ESCAPED:
        return _ESCAPED[escape]
    try:
        if escape[0] in "01234567":
            return chr(int(escape, 8))
        if len(escape) > 2 and escape[0] in "xuU":
            return chr(int(escape[1:], 16))
        if len(escape) > 2:
            return unicodedata.lookup(escape[2:-1])
    except (KeyError, ValueError, OverflowError):
        pass
    return match[0]
