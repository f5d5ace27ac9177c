"""The input of a custom tool, out of the JSON arguments of the function that stands for it."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from fllm_dialects.responses.tools import CUSTOM_ARGUMENT

_OPENING = re.compile(rf'\s*\{{\s*"{CUSTOM_ARGUMENT}"\s*:\s*"')
_COMPLETE = re.compile(
    # Plain characters, and whole escapes: those of a high surrogate with its low one.
    r'(?:[^"\\]+|\\["\\/bfnrt]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4})*'
)
_ENDING = re.compile(r'"\s*\}\s*\Z')


class CustomInput:
    """Emits the text of ``{"input": "..."}`` while its JSON arrives.

    Arguments of another form are emitted as a whole at the end. What follows the string is ignored.
    """

    def __init__(self) -> None:
        self._json = ""
        """All of the arguments so far."""
        self._start: int | None = None
        """Index of the first character that has not been emitted, once the string has begun."""
        self._ended = False
        self._emitted: list[str] = []

    @property
    def text(self) -> str:
        """What has been emitted."""
        return "".join(self._emitted)

    def feed(self, piece: str) -> str:
        """Return the next piece of the input."""
        self._json += piece
        if self._start is None:
            opening = _OPENING.match(self._json)
            if opening is None:
                return ""
            self._start = opening.end()
        if self._ended:
            return ""
        match = _COMPLETE.match(self._json, self._start)
        assert match is not None, "it matches an empty text"
        self._start = match.end()
        self._ended = self._json.startswith('"', self._start)
        return self._emit(_decode(match[0]))

    def finish(self) -> str:
        """Return what is left of the input: of a string that is cut off or invalid, the rest as it is."""
        if self._start is None:
            return self._emit(_whole(self._json))
        return "" if self._ended else self._emit(_ENDING.sub("", self._json[self._start :]))

    def _emit(self, text: str) -> str:
        if text:
            self._emitted.append(text)
        return text


def _decode(string: str) -> str:
    """Return the text of the inside of a JSON string, in which control characters may stand unescaped."""
    if "\\" not in string:
        return string
    escaped = re.sub(r"[\x00-\x1f]", lambda match: f"\\u{ord(match[0]):04x}", string)
    try:
        return msgspec.json.decode(f'"{escaped}"', type=str)
    except msgspec.DecodeError:  # a high surrogate with something else after it
        return string


def _whole(arguments: str) -> str:
    """Return the input of arguments that do not begin with it."""
    try:
        value: Any = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    if isinstance(value, dict) and isinstance(value.get(CUSTOM_ARGUMENT), str):
        text: str = value[CUSTOM_ARGUMENT]
        return text
    return arguments
