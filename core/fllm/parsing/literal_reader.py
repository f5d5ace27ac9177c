"""A recogniser of calls whose arguments are literals with names, fed in pieces of any size.

What Python's ``f(a=[1, 'x'], b={'k': None})`` and its kin have in common: words, strings and brackets. What
differs is in the class attributes and the three methods of a subclass. Nesting costs no recursion, and the
outcome depends on the text alone, never on how it was divided.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from msgspec import Struct

from fllm.parsing.json_scanner import DEEPEST, LONGEST

_SPACE = re.compile(r"\s*+")

Expected = Literal["key", "key or end", "assign", "value", "value or end", "next"]


class Scope(Struct, frozen=True):
    """What stands between two brackets."""

    closing: str
    assign: str = ""
    """Between a key and its value; empty, where there are no keys."""
    grouping: bool = False
    """One value without a comma stands for itself."""

    @property
    def brackets(self) -> str:
        """The brackets of its JSON."""
        return "{}" if self.assign else "[]"


class LiteralReader:
    """Reads the arguments of calls; a subclass says what is around them."""

    scopes: ClassVar[Mapping[str, Scope]]
    """By the opening bracket."""
    outermost: ClassVar[Scope]
    """The arguments themselves."""
    quotes: ClassVar[Sequence[str]]
    """What begins a string and ends it; one that begins with another comes first."""
    verbatim: ClassVar[frozenset[str]] = frozenset()
    """Quotes within which a backslash is a backslash."""
    word: ClassVar[re.Pattern[str]]
    """Anything else; matches the empty text too."""
    key: ClassVar[re.Pattern[str]]
    """The same where a key is expected."""

    def __init__(self) -> None:
        self.state: Literal["open", "complete", "broken"] = "open"
        self.length = 0
        """Characters read so far; of a complete body, its length."""
        self.calls: list[tuple[str, dict[str, str]]] = []
        """Name and arguments, as JSON by key, of each call that is complete."""
        self._rest = ""  # was read, but what it means depends on what comes
        self._expected: Expected | None = None  # outside of arguments
        self._stack: list[_Frame] = []
        self._json: list[str] = []
        self._quote = ""
        self._string: list[str] = []
        self._prefix = ""

    def feed(self, text: str, start: int = 0) -> None:
        """Read on, from ``start`` in ``text``, until the body ends or breaks or the text does."""
        self.length -= len(self._rest)
        text = self._rest + text[start:]
        position, moved = 0, True
        while self.state == "open" and moved:
            before = position, self._quote
            position = self._step(text, position)
            moved = (position, self._quote) != before
        self._rest = text[position:] if self.state == "open" else ""
        self.length += len(text) if self.state == "open" else position

    def outside(self, text: str, position: int) -> int:
        """Read on before or after arguments; the same position means that more text is needed."""
        raise NotImplementedError

    def scalar(self, word: str) -> str | None:
        """The JSON of a word, if it can be a value."""
        raise NotImplementedError

    def string(self, written: str, prefix: str) -> str | None:
        """The string of what stands between quotes, with that word right before them, if it can be one."""
        raise NotImplementedError

    def begin(self, name: str) -> None:
        """Arguments begin here."""
        self.calls.append((name, {}))
        self._stack = [_Frame(self.outermost, 0)]
        self._json = []
        self._expected = "key or end"

    def closed(self) -> None:
        """The arguments of a call are complete, and so is the body, unless a subclass reads on."""
        self.state = "complete"

    def give_up(self, position: int) -> int:
        """It is no call."""
        self.state = "broken"
        return position

    def _step(self, text: str, position: int) -> int:
        if self._quote:
            return self._within_string(text, position)
        if space := _end(_SPACE, text, position) - position:
            return position + space
        if position == len(text):
            return position
        if self._expected is None:
            return self.outside(text, position)
        return self._structure(text, position)

    def _structure(self, text: str, position: int) -> int:
        scope = self._stack[-1].scope
        char = text[position]
        if self._expected == "assign":
            return self._take(char == scope.assign, position, "value")
        if self._expected == "next" and char == ",":
            self._stack[-1].commas += 1
            return self._take(True, position, "key or end" if scope.assign else "value or end")
        if char == scope.closing and self._expected not in ("key", "value"):
            return self._close(position)
        if self._expected == "next":
            return self.give_up(position)
        if char in self.scopes and self._expected in ("value", "value or end"):
            return self._open(self.scopes[char], position)
        return self._atom(text, position)

    def _take(self, allowed: bool, position: int, expected: Expected) -> int:
        if not allowed:
            return self.give_up(position)
        self._expected = expected
        return position + 1

    def _open(self, scope: Scope, position: int) -> int:
        if len(self._stack) == DEEPEST:
            return self.give_up(position)
        self._separate()
        self._stack.append(_Frame(scope, len(self._json)))
        self._json.append(scope.brackets[0])
        self._expected = "key or end" if scope.assign else "value or end"
        return position + 1

    def _close(self, position: int) -> int:
        frame = self._stack.pop()
        if not self._stack:
            self._expected = None
            self.closed()
            return position + 1
        if frame.scope.grouping and frame.values == 1 and not frame.commas:
            self._json[frame.start] = ""
        else:
            self._json.append(frame.scope.brackets[1])
        return self._ended(position + 1)

    def _ended(self, position: int) -> int:
        """A value ends before ``position``."""
        frame = self._stack[-1]
        frame.values += 1
        self._expected = "next"
        if len(self._stack) == 1:
            self.calls[-1][1][frame.key] = "".join(self._json)
            self._json = []
        return position

    def _separate(self) -> None:
        if len(self._stack) > 1 and self._stack[-1].values and not self._stack[-1].scope.assign:
            self._json.append(", ")

    def _atom(self, text: str, position: int) -> int:
        """A word or the beginning of a string; more text is needed where either may go on."""
        in_key = self._expected in ("key", "key or end")
        end = _end(self.key if in_key else self.word, text, position)
        if end - position > LONGEST:
            return self.give_up(position)
        if end == len(text):
            return position
        for quote in self.quotes:
            if text.startswith(quote, end):
                self._prefix, self._quote = text[position:end], quote
                return end + len(quote)
            if quote.startswith(text[end:]):
                return position
        word = text[position:end].rstrip()
        return self._key(word, end) if in_key else self._value(word and self.scalar(word), end)

    def _within_string(self, text: str, position: int) -> int:
        start, quote = position, self._quote
        special = re.compile(re.escape(quote[0]) if quote in self.verbatim else rf"[{quote[0]}\\]")
        while found := special.search(text, position):
            position = found.start()
            if text[position] == "\\":
                if position + 1 == len(text):
                    break
                position += 2
            elif text.startswith(quote, position):
                self._string.append(text[start:position])
                return self._end_string(position + len(quote))
            elif quote.startswith(text[position:]):
                break
            else:
                position += 1
        else:
            position = len(text)
        self._string.append(text[start:position])
        return position

    def _end_string(self, position: int) -> int:
        written, self._string = "".join(self._string), []
        quote, self._quote = self._quote, ""
        verbatim = quote in self.verbatim and not self._prefix
        string = written if verbatim else self.string(written, self._prefix)
        if string is None:
            return self.give_up(position)
        if self._expected in ("key", "key or end"):
            return self._key(string, position)
        return self._value(quoted(string), position)

    def _key(self, key: str, position: int) -> int:
        if not key:
            return self.give_up(position)
        frame = self._stack[-1]
        frame.key = key
        if len(self._stack) > 1:
            self._json.append(f"{', ' if frame.values else ''}{quoted(key)}: ")
        self._expected = "assign"
        return position

    def _value(self, text: str | None, position: int) -> int:
        if not text:
            return self.give_up(position)
        self._separate()
        self._json.append(text)
        return self._ended(position)


class _Frame(Struct):
    scope: Scope
    start: int
    """Where its JSON begins."""
    values: int = 0
    commas: int = 0
    key: str = ""


def quoted(string: str) -> str:
    """The JSON of a string; half of a surrogate pair, which no client could be sent, is replaced."""
    sound = string.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return json.dumps(sound, ensure_ascii=False)


def json_object(members: Mapping[str, str]) -> str:
    """The JSON of an object, given the JSON of its values."""
    return "{" + ", ".join(f"{quoted(key)}: {value}" for key, value in members.items()) + "}"


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    assert match is not None  # these patterns match the empty text
    return match.end()
