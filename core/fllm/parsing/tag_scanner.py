"""A scanner of calls with a tag for each argument."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from msgspec import Struct

from fllm.parsing.body_scanner import MAX_NAME_LENGTH, ScanState, match_end
from fllm.parsing.partial_match import longest_overlap

_SPACE = re.compile(r"\s*+")
_NAME = re.compile(r'[^<>"\n]*+')


class TagFormat(Struct, frozen=True, kw_only=True):
    """The tags of a format. White space between tags has no meaning."""

    opening: str
    """Text before the name of the function. A value cannot contain it."""
    after_name: str = ""
    before_key: str
    after_key: tuple[str, ...]
    """Texts that follow the key one after the other, up to the value."""
    after_value: str
    end: str
    cut: tuple[str, ...] = ()
    """Texts that end a value and the call, for models that forget ``after_value``."""
    padding: str = ""
    """Text that is dropped once on either side of a value."""
    typed: bool = False
    """Whether all values except strings are JSON. Otherwise, an argument without a schema is a string."""


class TaggedBodyScanner:
    """A `BodyScanner` of one call, from its name to the last tag.

    A closing tag ends a value only if another tag follows, so a value may mention tags.
    """

    def __init__(self, tags: TagFormat) -> None:
        self.state: ScanState = "open"
        self.length = 0
        self.tags = tags
        self.name = ""
        """The name of the function; empty until it is complete."""
        self.arguments: list[tuple[str, str]] = []
        """The keys and values that are complete, as they were written."""
        self._step: Callable[[str, int], int] = self._read_name
        self._undecided = ""
        """Text that was read but whose meaning depends on what follows."""
        self._expected: list[str] = []
        self._key = ""
        self._value: list[str] = []
        self._ends = (tags.after_value, *tags.cut, tags.opening)
        self._end = re.compile("|".join(map(re.escape, self._ends)))

    def feed(self, text: str, start: int = 0) -> None:
        """Read on from index ``start`` of ``text``, until the call ends or breaks or the text ends."""
        self.length -= len(self._undecided)
        text = self._undecided + text[start:]
        position, before = 0, None
        while self.state == "open" and before != (position, self._step):
            before = position, self._step
            position = self._step(text, position)
        self._undecided = text[position:] if self.state == "open" else ""
        self.length += len(text) if self.state == "open" else position

    def _read_name(self, text: str, position: int) -> int:
        name, position = self._read_word(text, position)
        if name:
            self.name = name
            self._expect([self.tags.after_name] if self.tags.after_name else [], self._next_tag)
        return position

    def _read_word(self, text: str, position: int) -> tuple[str, int]:
        """Read a name or a key; return an empty one if more text is needed or it is not allowed."""
        end = match_end(_NAME, text, position)
        if end - position > MAX_NAME_LENGTH:
            self.state = "broken"
        elif end < len(text):
            name = text[position:end].strip()
            if name and name.isprintable():
                return name, end
            self.state = "broken"
        return "", position

    def _expect(self, tags: Iterable[str], then: Callable[[str, int], int]) -> None:
        self._expected = list(tags)
        self._then = then
        self._step = self._read_expected if self._expected else then

    def _read_expected(self, text: str, position: int) -> int:
        position = match_end(_SPACE, text, position)
        tag = self._match_tag(self._expected[:1], text, position)
        if not tag:
            return position
        self._expected.pop(0)
        if not self._expected:
            self._step = self._then
        return position + len(tag)

    def _match_tag(self, tags: Iterable[str], text: str, position: int) -> str:
        """Return the tag at ``position``, or nothing if more text is needed; break if no tag matches."""
        for tag in tags:
            if text.startswith(tag, position):
                return tag
            if tag.startswith(text[position : position + len(tag)]):
                return ""
        self.state = "broken"
        return ""

    def _next_tag(self, text: str, position: int) -> int:
        position = match_end(_SPACE, text, position)
        tag = self._match_tag((self.tags.before_key, self.tags.end), text, position)
        return self._accept_tag(tag, position) if tag else position

    def _accept_tag(self, tag: str, position: int) -> int:
        if tag == self.tags.end:
            self.state = "complete"
        else:
            self._step = self._read_key
        return position + len(tag)

    def _read_key(self, text: str, position: int) -> int:
        key, position = self._read_word(text, position)
        if key:
            self._key = key
            self._expect(self.tags.after_key, self._read_value)
        return position

    def _read_value(self, text: str, position: int) -> int:
        match = self._end.search(text, position)
        if match is None:
            end = len(text) - longest_overlap(text[position:], self._ends)
            self._value.append(text[position:end])
            return end
        self._value.append(text[position : match.start()])
        if match[0] == self.tags.opening:
            self.state = "broken"
        elif match[0] == self.tags.after_value:
            self._value.append(match[0])
            self._step = self._after_value
        else:
            self._end_value()
            self.state = "complete"
        return match.end()

    def _after_value(self, text: str, position: int) -> int:
        """End the value if another tag follows; otherwise the closing tag was a part of it."""
        if space := match_end(_SPACE, text, position) - position:
            self._value.append(text[position : position + space])
            return position + space
        tag = self._match_tag((self.tags.before_key, self.tags.end), text, position)
        if tag:
            self._end_value()
            return self._accept_tag(tag, position)
        if self.state == "broken":
            self.state = "open"
            self._step = self._read_value
        return position

    def _end_value(self) -> None:
        value, self._value = "".join(self._value), []
        content, tag, space = value.rpartition(self.tags.after_value)
        self.arguments.append((self._key, content if tag and not space.strip() else value))


def taggable(key: str) -> bool:
    """Return whether a tag can hold this key."""
    fits = _NAME.fullmatch(key) is not None and key == key.strip()
    return fits and key.isprintable() and 0 < len(key) <= MAX_NAME_LENGTH
