"""A recogniser of calls with a tag for each argument, fed in pieces of any size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal

from msgspec import Struct

from fllm.parsing.partial_match import longest_overlap

LONGEST_NAME = 256

_SPACE = re.compile(r"\s*+")
_NAME = re.compile(r'[^<>"\n]*+')


class TagFormat(Struct, frozen=True, kw_only=True):
    """The tags of a format. White space between them means nothing."""

    opening: str
    """Is before the name; no value has it in it."""
    after_name: str = ""
    before_key: str
    after_key: tuple[str, ...]
    """One after the other, up to the value."""
    after_value: str
    end: str
    cut: tuple[str, ...] = ()
    """What ends a value and the call with it, where a model forgets ``after_value``."""
    padding: str = ""
    """Is dropped on either side of a value, once."""
    typed: bool = False
    """What is no string is written as JSON; otherwise an argument of unknown type is a string."""


class TaggedBodyScanner:
    """A `BodyScanner` of one call, from its name to the last tag.

    A value ends at its closing tag if more tags follow, so a value may speak of tags.
    """

    def __init__(self, tags: TagFormat) -> None:
        self.state: Literal["open", "complete", "broken"] = "open"
        self.length = 0
        self.name = ""
        self.arguments: list[tuple[str, str]] = []
        """Keys and values, as they were written."""
        self._tags = tags
        self._step: Callable[[str, int], int] = self._name
        self._rest = ""  # was read, but what it means depends on what comes
        self._expected: list[str] = []
        self._key = ""
        self._value: list[str] = []
        self._ends = (tags.after_value, *tags.cut, tags.opening)
        self._end = re.compile("|".join(map(re.escape, self._ends)))

    def feed(self, text: str, start: int = 0) -> None:
        """Read on, from ``start`` in ``text``, until the call ends or breaks or the text does."""
        self.length -= len(self._rest)
        text = self._rest + text[start:]
        position, before = 0, None
        while self.state == "open" and before != (position, self._step):
            before = position, self._step
            position = self._step(text, position)
        self._rest = text[position:] if self.state == "open" else ""
        self.length += len(text) if self.state == "open" else position

    def _name(self, text: str, position: int) -> int:
        name, position = self._word(text, position)
        if name:
            self.name = name
            self._expect([self._tags.after_name] if self._tags.after_name else [], self._between)
        return position

    def _word(self, text: str, position: int) -> tuple[str, int]:
        """A name or a key; nothing, if more text is needed or it can be none."""
        match = _NAME.match(text, position)
        assert match is not None  # it matches the empty text
        if len(match[0]) > LONGEST_NAME:
            self.state = "broken"
        elif match.end() < len(text):
            name = match[0].strip()
            if name and name.isprintable():
                return name, match.end()
            self.state = "broken"
        return "", position

    def _expect(self, tags: Iterable[str], then: Callable[[str, int], int]) -> None:
        self._expected = list(tags)
        self._then = then
        self._step = self._tags_expected if self._expected else then

    def _tags_expected(self, text: str, position: int) -> int:
        position = _behind_space(text, position)
        found = self._one_of(self._expected[:1], text, position)
        if not found:
            return position
        self._expected.pop(0)
        if not self._expected:
            self._step = self._then
        return position + len(found)

    def _one_of(self, tags: Iterable[str], text: str, position: int) -> str:
        """Which tag stands there; nothing, if more text is needed, or if none does: then it is broken."""
        for tag in tags:
            if text.startswith(tag, position):
                return tag
            if tag.startswith(text[position : position + len(tag)]):
                return ""
        self.state = "broken"
        return ""

    def _between(self, text: str, position: int) -> int:
        position = _behind_space(text, position)
        found = self._one_of((self._tags.before_key, self._tags.end), text, position)
        return self._tag(found, position) if found else position

    def _tag(self, tag: str, position: int) -> int:
        if tag == self._tags.end:
            self.state = "complete"
        else:
            self._step = self._read_key
        return position + len(tag)

    def _read_key(self, text: str, position: int) -> int:
        key, position = self._word(text, position)
        if key:
            self._key = key
            self._expect(self._tags.after_key, self._in_value)
        return position

    def _in_value(self, text: str, position: int) -> int:
        match = self._end.search(text, position)
        if match is None:
            end = len(text) - longest_overlap(text[position:], self._ends)
            self._value.append(text[position:end])
            return end
        self._value.append(text[position : match.start()])
        if match[0] == self._tags.opening:
            self.state = "broken"
        elif match[0] == self._tags.after_value:
            self._value.append(match[0])
            self._step = self._behind_value
        else:
            self._end_value()
            self.state = "complete"
        return match.end()

    def _behind_value(self, text: str, position: int) -> int:
        """The value has ended if a tag follows; otherwise that was a part of it."""
        if end := _behind_space(text, position) - position:
            self._value.append(text[position : position + end])
            return position + end
        found = self._one_of((self._tags.before_key, self._tags.end), text, position)
        if found:
            self._end_value()
            return self._tag(found, position)
        if self.state == "broken":
            self.state = "open"
            self._step = self._in_value
        return position

    def _end_value(self) -> None:
        value, self._value = "".join(self._value), []
        head, tag, space = value.rpartition(self._tags.after_value)
        self.arguments.append((self._key, head if tag and not space.strip() else value))


def taggable(key: str) -> bool:
    """Whether a tag can hold this key."""
    whole = _NAME.fullmatch(key) is not None and key == key.strip()
    return whole and key.isprintable() and 0 < len(key) <= LONGEST_NAME


def _behind_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None  # it matches the empty text
    return match.end()
