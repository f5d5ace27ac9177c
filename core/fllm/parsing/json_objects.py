"""A stage that finds the JSON objects in a text."""

from __future__ import annotations

import json
import re

from msgspec import Struct

from fllm.parsing.json_scanner import JsonScanner

# Most braces of prose are no beginning, which is seen at once.
_BEGINNING = re.compile(r'\{(?=[ \t\n\r]*+(?:["}]|\Z))')


class JsonObject(Struct, frozen=True):
    """An object as it was written."""

    text: str
    members: dict[str, str]
    """The JSON text of each value, as it was written, by key; of a key that comes twice, the last."""


def read_object(text: str) -> JsonObject | None:
    """The object that the whole text is, if it is one; white space may come before it, and not after."""
    scanner = JsonScanner()
    scanner.feed(text)
    return _object(text, scanner) if scanner.state == "complete" and scanner.length == len(text) else None


class ObjectFinder:
    """Divides a text into JSON objects and what is around them; concatenated, that is the text again.

    Text passes at once, objects when they are complete, the outermost only. What begins like an object and
    breaks off is text, with every object that was read as a part of it: a call within a broken value must not
    become a call. Reading goes on behind its brace, but of those that it read only braces within strings are
    tried again. That keeps the work linear: attempts overlap only where one's strings are the other's
    structure, so never three.
    """

    def __init__(self) -> None:
        self._scanner: JsonScanner | None = None
        self._held: list[str] = []
        self._spent: set[int] = set()

    def feed(self, text: str) -> list[str | JsonObject]:
        """Take a piece; give what is certain."""
        if self._scanner is None:
            return self._divide(text) if "{" in text else [text] if text else []
        self._scanner.feed(text)
        self._held.append(text)
        return self._divide(self._release()) if self._scanner.state != "open" else []

    def finish(self) -> list[str | JsonObject]:
        """No more will come: an object that is still open is broken."""
        return self._divide(self._release(), final=True)

    def _release(self) -> str:
        held, self._held = "".join(self._held), []
        return held

    def _divide(self, text: str, *, final: bool = False) -> list[str | JsonObject]:
        """Divide a text that begins where the held object does, if there is one."""
        found: list[str | JsonObject] = []
        given = start = 0
        scanner, self._scanner = self._scanner, None
        spent, self._spent = self._spent, set()
        while scanner or (start := _next(text, start, spent)) >= 0:
            if scanner is None:
                scanner = JsonScanner()
                scanner.feed(text, start)
            if scanner.state == "open" and not final:
                self._hold(text[start:], scanner, {brace - start for brace in spent if brace > start})
                text = text[:start]
                break
            if scanner.state == "complete":
                end = start + scanner.length
                found += [text[given:start], _object(text[start:end], scanner)]
                given = start = end
            else:
                spent.update(start + brace for brace in scanner.opened)
                start += 1
            scanner = None
        return [part for part in [*found, text[given:]] if part]

    def _hold(self, text: str, scanner: JsonScanner, spent: set[int]) -> None:
        self._held = [text]
        self._scanner = scanner
        self._spent = spent


def _next(text: str, start: int, spent: set[int]) -> int:
    braces = (match.start() for match in _BEGINNING.finditer(text, start))
    return next((brace for brace in braces if brace not in spent), -1)


def _object(text: str, scanner: JsonScanner) -> JsonObject:
    return JsonObject(text, {json.loads(text[key]): text[value] for key, value in scanner.members})
