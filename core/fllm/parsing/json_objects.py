"""A stage that finds the JSON objects in a text."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from msgspec import Struct

from fllm.parsing.json_scanner import JsonScanner

# Most braces in prose do not begin an object; the next character shows that.
_OBJECT_START = re.compile(r'\{(?=[ \t\n\r]*+(?:["}]|\Z))')


class JsonObject(Struct, frozen=True):
    """A JSON object, or the beginning of one that is certain."""

    text: str
    """The text as it was written."""
    scanner: JsonScanner
    """The scanner that has read it."""

    @property
    def members(self) -> dict[str, str]:
        """The JSON text of each value, by key; the last value of a repeated key counts."""
        return self.scanner.members


def read_object(text: str) -> JsonObject | None:
    """Return the object that is the whole of ``text``, if it is one; white space may only precede it."""
    scanner = JsonScanner()
    scanner.feed(text)
    whole = scanner.state == "complete" and scanner.length == len(text)
    return JsonObject(text, scanner) if whole else None


def is_json(text: str) -> bool:
    """Return whether a text is JSON that others can read: no half of a surrogate pair, no huge number."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def complete_object(text: str) -> str | None:
    """Return the JSON object that is the whole of ``text``, completed if it is cut off, or else ``None``.

    Control characters in strings are escaped.
    """
    scanner = JsonScanner()
    scanner.feed(text)
    if scanner.state == "complete":
        return scanner.json_text(0, scanner.length) if scanner.length == len(text) else None
    if scanner.state == "broken" or not scanner.closable:
        return None
    return scanner.json_text(0, scanner.closable) + scanner.closing()


class ObjectFinder:
    """Divides a text into JSON objects and the text around them; concatenated, the parts are the text again.

    Text is returned at once, and an object, the outermost only, when it is complete. What begins like an
    object and breaks off is text, and so are the objects that were read as a part of it: a call within a
    broken value must not become a call. Reading continues after the brace of the broken object, but among the
    braces that it contained, only those within strings are tried again. That keeps the work linear: attempts
    overlap only where the strings of one are the structure of the other, so at most two cover the same
    character.

    An object that ``is_certain`` when it breaks off is an object up to there, `JsonScanner.closable`.
    """

    def __init__(self, is_certain: Callable[[JsonScanner], bool] = lambda _: False) -> None:
        self._is_certain = is_certain
        self._scanner: JsonScanner | None = None
        self._pending: list[str] = []
        """The text from the beginning of the open object on."""
        self._tried: set[int] = set()
        """Positions in the pending text of braces that belong to a broken object."""

    @property
    def open_object(self) -> JsonScanner | None:
        """The scanner of the object that is open."""
        return self._scanner

    def feed(self, text: str) -> list[str | JsonObject]:
        """Process the next piece; return the parts that are certain."""
        if self._scanner is None:
            return self._divide(text) if "{" in text else [text] if text else []
        self._scanner.feed(text)
        self._pending.append(text)
        return self._divide(self._take_pending()) if self._scanner.state != "open" else []

    def finish(self) -> list[str | JsonObject]:
        """End the text: an object that is still open is broken."""
        return self._divide(self._take_pending(), final=True)

    def _take_pending(self) -> str:
        pending, self._pending = "".join(self._pending), []
        return pending

    def _divide(self, text: str, *, final: bool = False) -> list[str | JsonObject]:
        """Divide ``text``, which begins where the open object does if there is one."""
        parts: list[str | JsonObject] = []
        returned = start = 0
        scanner, self._scanner = self._scanner, None
        tried, self._tried = self._tried, set()
        while scanner or (start := _next_start(text, start, tried)) >= 0:
            if scanner is None:
                scanner = JsonScanner()
                scanner.feed(text, start)
            if scanner.state == "open" and not final:
                self._scanner = scanner
                self._pending = [text[start:]]
                self._tried = {brace - start for brace in tried if brace > start}
                text = text[:start]
                break
            if scanner.state == "complete":
                end = start + scanner.length
                parts += [text[returned:start], JsonObject(text[start:end], scanner)]
                returned = start = end
            elif self._is_certain(scanner):
                end = start + (scanner.closable if scanner.state == "broken" else scanner.length)
                parts += [text[returned:start], JsonObject(text[start:end], scanner)]
                returned = start = end
            else:
                tried.update(start + brace for brace in scanner.object_starts)
                start += 1
            scanner = None
        return [part for part in [*parts, text[returned:]] if part]


def _next_start(text: str, start: int, tried: set[int]) -> int:
    braces = (match.start() for match in _OBJECT_START.finditer(text, start))
    return next((brace for brace in braces if brace not in tried), -1)
