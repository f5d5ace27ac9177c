"""Writes the JSON text of the arguments of a call piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterable

_HIGH_SURROGATES = ("\ud800", "\udbff")


class ArgumentWriter:
    """Returns the JSON text of one object as its members become known; the pieces together are the object.

    A string can be written in pieces: `begin_string`, `string` any number of times, `end_string`.
    """

    def __init__(self) -> None:
        self.count = 0
        """Number of members that are complete."""
        self.in_string = False
        """Whether a string is being written."""
        self.complete = False
        """Whether the object is complete."""
        self._pending = ""

    def begin(self) -> str:
        """Return the beginning of the object, unless it has been returned with a member."""
        return "" if self.count or self.in_string else "{"

    def value(self, key: str, text: str) -> str:
        """Return a member whose value has this JSON text."""
        before = self._before()
        self.count += 1
        return f"{before}{quoted(key)}: {text}"

    def begin_string(self, key: str) -> str:
        """Return the beginning of a member whose value is a string."""
        self.in_string = True
        return f'{self._before()}{quoted(key)}: "'

    def string(self, text: str) -> str:
        """Return the next piece of the string, whose content is ``text``."""
        text = self._pending + text
        # The second half of a surrogate pair may follow.
        self._pending = text[-1:] if _HIGH_SURROGATES[0] <= text[-1:] <= _HIGH_SURROGATES[1] else ""
        return quoted(text.removesuffix(self._pending))[1:-1]

    def end_string(self) -> str:
        """Return the end of the string."""
        self.count += 1
        return self._end_string()

    def end(self) -> str:
        """Return the end of the object, and of a string that is still open."""
        self.complete = True
        end = self._end_string() if self.in_string else ""
        return end + ("}" if self.count or end else "{}")

    @classmethod
    def whole(cls, members: Iterable[tuple[str, str]]) -> str:
        """Return the object with these members, whose values are JSON texts."""
        writer = cls()
        return "".join([*(writer.value(*member) for member in members), writer.end()])

    def _end_string(self) -> str:
        pending, self._pending, self.in_string = self._pending, "", False
        return f'{quoted(pending)[1:-1]}"'

    def _before(self) -> str:
        return ", " if self.count else "{"


def quoted(string: str) -> str:
    """Return the JSON of a string. Half of a surrogate pair is replaced, since UTF-8 cannot encode it."""
    valid = string.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return json.dumps(valid, ensure_ascii=False)
