"""The base of scanners of calls whose arguments are literals with names.

The notations of this family, such as Python's ``f(a=[1, 'x'], b={'k': None})``, consist of words, strings and
brackets. A subclass sets class attributes and defines three methods for what differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from msgspec import Struct

from fllm.parsing.argument_writer import quoted
from fllm.parsing.body_scanner import MAX_DEPTH, MAX_NUMBER_LENGTH, ScanState, match_end

_SPACE = re.compile(r"\s*+")
_INCOMPLETE_ESCAPE = re.compile(
    r"(?<!\\)(?:\\\\)*+(\\(?:x[0-9A-Fa-f]?|u[0-9A-Fa-f]{0,3}|U[0-9A-Fa-f]{0,7}"
    r"|N(?:\{[^{}]{0,80})?|[0-7]{1,2})?)\Z"
)

_Expected = Literal["key", "key or end", "assign", "value", "value or end", "next"]


class Scope(Struct, frozen=True):
    """The notation between two brackets."""

    closing: str
    assign: str = ""
    """Character between a key and its value; empty if there are no keys."""
    grouping: bool = False
    """Whether one value without a comma stands for itself."""
    may_be_list: bool = False
    """Whether the values may have no keys, as in Python's sets."""

    @property
    def brackets(self) -> str:
        """The brackets of the same value in JSON."""
        return "{}" if self.assign else "[]"


class LiteralScanner:
    """Reads the arguments of calls; a subclass defines the notation and reads the text around them.

    Nesting uses a stack instead of recursion. The result depends on the text alone, not on how it was
    divided.
    """

    scopes: ClassVar[Mapping[str, Scope]]
    """The notation of each kind of bracket, by the opening bracket."""
    outermost: ClassVar[Scope]
    """The notation of the arguments of a call."""
    quotes: ClassVar[Sequence[str]]
    """Quotes that begin and end a string; a quote that begins with another one must precede it."""
    verbatim: ClassVar[frozenset[str]] = frozenset()
    """Quotes between which a backslash has no special meaning."""
    word: ClassVar[re.Pattern[str]]
    """Matches any other value, and the empty text."""
    key: ClassVar[re.Pattern[str]]
    """Matches a key without quotes, and the empty text."""

    def __init__(self) -> None:
        self.state: ScanState = "open"
        self.length = 0
        """Number of characters read so far; the length of the body once it is complete."""
        self.calls: list[LiteralCall] = []
        """The calls. The last one may still be incomplete."""
        self.unread = ""
        """The text after what was understood, once the body is broken."""
        self._undecided = ""
        """Text that was read but whose meaning depends on what follows."""
        self._expected: _Expected | None = None
        """What may come next; ``None`` outside of arguments."""
        self._stack: list[_Frame] = []
        self._json: list[str] = []
        self._quote = ""
        self._string: list[str] = []
        self._fresh: list[str] = []
        """What was not taken yet of a string that is the value of an argument."""
        self._prefix = ""

    def feed(self, text: str, start: int = 0) -> None:
        """Read on from index ``start`` of ``text``, until the body ends or breaks or the text ends."""
        self.length -= len(self._undecided)
        text = self._undecided + text[start:]
        position, moved = 0, True
        while self.state == "open" and moved:
            before = position, self._quote, self._expected
            position = self._step(text, position)
            moved = (position, self._quote, self._expected) != before
        self._undecided = text[position:] if self.state == "open" else ""
        self.unread = text[position:] if self.state == "broken" else ""
        self.length += len(text) if self.state == "open" else position

    def outside(self, text: str, position: int) -> int:
        """Read on before or after arguments; return the new position, or the same if more text is needed."""
        raise NotImplementedError

    def scalar(self, word: str) -> str | None:
        """Return the JSON of a word, or ``None`` if it is not a value."""
        raise NotImplementedError

    def string(self, written: str, prefix: str) -> str | None:
        """Return the string between two quotes that follow the word ``prefix``; ``None`` if it is invalid."""
        raise NotImplementedError

    @property
    def open_string(self) -> str | None:
        """The key of the argument whose value is a string that is being read."""
        within = self._quote and len(self._stack) == 1 and self._expected == "value"
        return self._stack[0].key if within else None

    def take_string(self) -> str:
        """Return what is new and certain of the string that `open_string` names."""
        written = "".join(self._fresh)
        incomplete = None if self._is_verbatim(self._quote) else _INCOMPLETE_ESCAPE.search(written)
        end = incomplete.start(1) if incomplete else len(written)
        self._fresh = [written[end:]]
        return self._decoded(written[:end], self._quote) or ""

    def _is_verbatim(self, quote: str) -> bool:
        return quote in self.verbatim and not self._prefix

    def _decoded(self, written: str, quote: str) -> str | None:
        return written if self._is_verbatim(quote) else self.string(written, self._prefix)

    def begin(self, name: str) -> None:
        """Begin the arguments of the call ``name``."""
        self.calls.append(LiteralCall(name))
        self._stack = [_Frame(self.outermost, 0)]
        self._json = []
        self._expected = "key or end"

    def closed(self) -> None:
        """End the arguments of a call, and with them the body; a subclass may read on instead."""
        self.state = "complete"

    def reject(self, position: int) -> int:
        """Stop: the text is not a call. Return ``position``."""
        self.state = "broken"
        return position

    def _step(self, text: str, position: int) -> int:
        if self._quote:
            return self._within_string(text, position)
        if space := match_end(_SPACE, text, position) - position:
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
            if char in (",", scope.closing) and scope.may_be_list and not self._stack[-1].values:
                return self._begin_list(position)
            return self._assign(char, position)
        if self._expected == "next" and char == ",":
            self._stack[-1].commas += 1
            return self._advance(True, position, "key or end" if scope.assign else "value or end")
        if char == scope.closing and self._expected not in ("key", "value"):
            return self._close(position)
        if self._expected == "next":
            return self.reject(position)
        if char in self.scopes and self._expected in ("value", "value or end"):
            return self._open(self.scopes[char], position)
        return self._atom(text, position)

    def _assign(self, char: str, position: int) -> int:
        frame = self._stack[-1]
        if len(self._stack) > 1:
            self._json.append(f"{', ' if frame.values else ''}{quoted(frame.key)}: ")
        return self._advance(char == frame.scope.assign, position, "value")

    def _begin_list(self, position: int) -> int:
        """Continue with a list, whose first value was read as a key."""
        frame = self._stack[-1]
        frame.scope = Scope(frame.scope.closing)
        self._json[frame.start] = frame.scope.brackets[0]
        return self._value(frame.key_json, position)

    def _advance(self, allowed: bool, position: int, expected: _Expected) -> int:
        if not allowed:
            return self.reject(position)
        self._expected = expected
        return position + 1

    def _open(self, scope: Scope, position: int) -> int:
        if len(self._stack) == MAX_DEPTH:
            return self.reject(position)
        self.calls[-1].certain = True
        self._separate()
        self._stack.append(_Frame(scope, len(self._json)))
        self._json.append(scope.brackets[0])
        self._expected = "key or end" if scope.assign else "value or end"
        return position + 1

    def _close(self, position: int) -> int:
        frame = self._stack.pop()
        if not self._stack:
            self.calls[-1].certain = self.calls[-1].complete = True
            self._expected = None
            self.closed()
            return position + 1
        if frame.scope.grouping and frame.values == 1 and not frame.commas:
            self._json[frame.start] = ""
        else:
            self._json.append(frame.scope.brackets[1])
        return self._end_value(position + 1)

    def _end_value(self, position: int) -> int:
        """Store a value, which ends before ``position``."""
        frame = self._stack[-1]
        frame.values += 1
        self._expected = "next"
        if len(self._stack) == 1:
            rest, self._fresh = "".join(self._fresh), []
            self.calls[-1].arguments.append(LiteralArgument(frame.key, "".join(self._json), rest))
            self._json = []
        return position

    def _separate(self) -> None:
        if len(self._stack) > 1 and self._stack[-1].values and not self._stack[-1].scope.assign:
            self._json.append(", ")

    def _atom(self, text: str, position: int) -> int:
        """Read a word or the beginning of a string; wait for more text where either may go on."""
        in_key = self._expected in ("key", "key or end")
        end = match_end(self.key if in_key else self.word, text, position)
        if end - position > MAX_NUMBER_LENGTH:
            return self.reject(position)
        if end == len(text):
            return position
        for quote in self.quotes:
            if text.startswith(quote, end):
                return self._begin_string(text[position:end], quote, end + len(quote))
            if quote.startswith(text[end:]):
                return position
        word = text[position:end].rstrip()
        value = self.scalar(word) if word else None
        return self._key(word, value, end) if in_key else self._value(value, end)

    def _begin_string(self, prefix: str, quote: str, position: int) -> int:
        self._prefix = prefix
        if self._decoded("", quote) is None:
            return self.reject(position)
        self._quote = quote
        if self.open_string is not None:
            self.calls[-1].certain = True
        return position

    def _within_string(self, text: str, position: int) -> int:
        start, quote = position, self._quote
        special = re.compile(re.escape(quote[0]) if quote in self.verbatim else rf"[{quote[0]}\\]")
        while match := special.search(text, position):
            position = match.start()
            if text[position] == "\\":
                if position + 1 == len(text):
                    break
                position += 2
            elif text.startswith(quote, position):
                self._add(text[start:position])
                return self._end_string(position + len(quote))
            elif quote.startswith(text[position:]):
                break
            else:
                position += 1
        else:
            position = len(text)
        self._add(text[start:position])
        return position

    def _add(self, text: str) -> None:
        self._string.append(text)
        if self.open_string is not None:
            self._fresh.append(text)

    def _end_string(self, position: int) -> int:
        written, self._string = "".join(self._string), []
        quote, self._quote = self._quote, ""
        string = self._decoded(written, quote)
        if string is None:
            return self.reject(position)
        self._fresh = [self._decoded("".join(self._fresh), quote) or ""]
        if self._expected in ("key", "key or end"):
            return self._key(string, quoted(string), position)
        return self._value(quoted(string), position)

    def _key(self, key: str, json: str | None, position: int) -> int:
        """Read a key, which has the JSON ``json`` if it is a value of a list."""
        if not key:
            return self.reject(position)
        frame = self._stack[-1]
        frame.key, frame.key_json = key, json
        self._expected = "assign"
        return position

    def _value(self, text: str | None, position: int) -> int:
        if not text:
            return self.reject(position)
        self.calls[-1].certain = True
        self._separate()
        self._json.append(text)
        return self._end_value(position)


class LiteralArgument(Struct, frozen=True):
    """An argument that has been read."""

    key: str
    value: str
    """The JSON of the value."""
    rest: str
    """The rest of a string, after what `LiteralScanner.take_string` returned before."""


class LiteralCall(Struct):
    """A call that is being read."""

    name: str
    arguments: list[LiteralArgument] = []
    """The arguments that are complete."""
    certain: bool = False
    """Whether a value has begun, or the call is complete."""
    complete: bool = False


class _Frame(Struct):
    scope: Scope
    start: int
    """Index in the list of JSON fragments where the value begins."""
    values: int = 0
    commas: int = 0
    key: str = ""
    key_json: str | None = None
