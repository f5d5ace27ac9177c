"""The input of a custom tool, out of the JSON arguments of the function that stands for it."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from fllm_dialects.responses.tools import CUSTOM_ARGUMENT

_OPENING = re.compile(rf'\s*\{{\s*"{CUSTOM_ARGUMENT}"\s*:\s*"')
_MAX_OPENING = 64
"""Number of characters after which the arguments are of another form."""
_COMPLETE = re.compile(
    # Plain characters and whole escapes; those of a character outside the basic plane are a pair.
    r'(?:[^"\\]+|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*"
)
_LONGEST_ESCAPE = 12
_CONTROL = re.compile(r"[\x00-\x1f]")


class CustomInput:
    """Emits the text of ``{"input": "..."}`` while its JSON arrives.

    Arguments of another form are emitted as a whole at the end. Invalid escapes are emitted as they are. What
    follows the string is ignored.
    """

    def __init__(self) -> None:
        self._opening = ""
        """The arguments before the string begins; all pieces, if it does not begin."""
        self._others: list[str] = []
        self._begun = self._ended = False
        self._rest = ""
        """What has arrived of the string, but is not emitted: less than an escape."""
        self._emitted: list[str] = []

    @property
    def text(self) -> str:
        """What has been emitted."""
        return "".join(self._emitted)

    def feed(self, piece: str) -> str:
        """Return the next piece of the input."""
        if self._ended:
            return ""
        if not self._begun:
            if len(self._opening) > _MAX_OPENING:
                self._others.append(piece)
                return ""
            self._opening += piece
            opening = _OPENING.match(self._opening)
            if opening is None:
                return ""
            self._begun, piece = True, self._opening[opening.end() :]
        self._rest += piece
        return self._emit(self._decode(final=False))

    def finish(self) -> str:
        """Return what is left of the input."""
        if not self._begun:
            return self._emit(_whole(self._opening + "".join(self._others)))
        return self._emit(self._decode(final=True))

    def _decode(self, *, final: bool) -> str:
        decoded: list[str] = []
        start, length = 0, len(self._rest)
        while not self._ended:
            complete = _COMPLETE.match(self._rest, start)
            assert complete is not None, "it matches an empty text"
            decoded.append(_unescaped(complete[0]))
            start = complete.end()
            self._ended = self._rest.startswith('"', start)
            if self._ended or start == length or not (final or length - start >= _LONGEST_ESCAPE):
                break
            decoded.append(self._rest[start])  # no escape begins like this
            start += 1
        self._rest = self._rest[start:]
        return "".join(decoded)

    def _emit(self, text: str) -> str:
        if text:
            self._emitted.append(text)
        return text


def _unescaped(string: str) -> str:
    """Return the text of the inside of a JSON string, in which control characters may stand unescaped."""
    if "\\" not in string:
        return string
    escaped = _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", string)
    return msgspec.json.decode(f'"{escaped}"', type=str)


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
