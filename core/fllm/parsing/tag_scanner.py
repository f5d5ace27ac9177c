"""A scanner of calls with a tag for each argument."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from msgspec import Struct

from fllm.parsing.body_scanner import MAX_NAME_LENGTH, ScanState, match_end
from fllm.parsing.partial_match import longest_overlap
from fllm.parsing.text_patterns import WORDS, TextPattern, match_pattern

_SPACE = re.compile(r"\s*+")
_INDENTATION = r"\n[ \t]{0,40}+"
_LINE_END = re.compile(rf"{_INDENTATION}\Z")

MAX_LOOKAHEAD = 1024
"""Maximum number of characters that are held back to see whether a closing tag was forgotten."""


class TagFormat(Struct, frozen=True, kw_only=True):
    """The tags of a format. White space between tags has no meaning."""

    opening: str
    """Text before the name of the function. A value cannot contain it."""
    after_name: str = ""
    before_key: str
    after_key: tuple[str, ...]
    """Texts that follow the key one after the other, up to the value."""
    after_value: str
    """Text that ends a value. It may contain ``{key}``, which stands for the key of the value."""
    end: str
    cut: tuple[str, ...] = ()
    """Tags, with white space between them, that end a value and the call if ``after_value`` is forgotten."""
    padding: str = ""
    """Text that is dropped once on either side of a value."""
    typed: bool = False
    """Whether all values except strings are JSON. Otherwise, an argument without a schema is a string."""
    tag_end: str = ""
    """Text that ends the tags of the name and of a key, if attributes may stand before it."""
    type_attributes: tuple[tuple[str, str], ...] = ()
    """JSON types and the attribute that the tag of a key has for values of the type."""
    quotes: tuple[str, str] = ("", "")
    """Texts that may enclose a value, which then may contain tags."""
    special: bool = False
    """Whether all tags have a special token, so that no value contains one."""

    def attribute(self, type_: str) -> str:
        """Return the attribute for values of a type."""
        return dict(self.type_attributes).get(type_, "")

    def marks_string(self, attributes: str) -> bool:
        """Return whether the attributes of a tag say that the value is a string."""
        mark = self.attribute("string").strip()
        return bool(mark) and mark in attributes


class TaggedBodyScanner:
    """A `BodyScanner` of one call, from its name to the last tag.

    A closing tag ends a value only if another tag follows, so a value may mention tags. From its first
    argument on, the text is certain to be a call: what is wrong between the tags is skipped.
    """

    def __init__(
        self,
        tags: TagFormat,
        *,
        accepts: Callable[[str], bool] = lambda _: True,
        is_tool: Callable[[str], bool] = lambda _: False,
        is_parameter: Callable[[str, str], bool] = lambda _, __: False,
        sections: tuple[str, ...] = (),
        closing: tuple[str, ...] = (),
    ) -> None:
        """Read calls whose names ``accepts`` allows.

        ``is_tool`` and ``is_parameter`` tell the calls and arguments that follow a forgotten closing tag from
        values that mention tags. They receive the name of a tool, and then that of a parameter.
        ``sections`` are texts that may precede a call, or follow one if the tags are `TagFormat.special`.
        ``closing`` are texts after a call, which end it if its own end is missing and a value ends, or the
        output does.
        """
        self.state: ScanState = "open"
        self.length = 0
        self.tags = tags
        self.name = ""
        """The name of the function; empty until it is complete."""
        self.certain = False
        """Whether the text is certain to be a call: its first argument has begun."""
        self.key = ""
        """The key of the value that is open; empty between values."""
        self.arguments: list[tuple[str, str]] = []
        """The keys and values that are complete, without the padding."""
        self.marked_strings: list[bool] = []
        """For each of them, whether the attributes of its tag say that it is a string."""
        self.marked_string = False
        """Whether the attributes of the last tag say that the value is a string."""
        self._accepts = accepts
        self._is_tool = is_tool
        self._is_parameter = is_parameter
        self._step: Callable[[str, int], int] = self._read_name
        self.unread = ""
        """The text after what was understood, once the body is broken."""
        self._undecided = ""
        """Text that was read but whose meaning depends on what follows."""
        self._expected: list[str] = []
        self._next_key = ""
        self._value: list[str] = []
        self._ends_of_value: tuple[str, ...] = ()
        self._depth = 0
        self._closing: list[str] = []
        """A closing tag and white space after it, which end the value if another tag follows."""
        self._fresh: list[str] = []
        """What was not taken yet of the value."""
        self._taken = False
        self._skipped: list[str] = []
        self._sections = sections
        self._ends = (tags.end, *closing, *" ".join(tags.cut).split())
        self._patterns = _patterns(tags, sections, self._ends)

    def feed(self, text: str, start: int = 0) -> None:
        """Read on from index ``start`` of ``text``, until the call ends or breaks or the text ends."""
        self.length -= len(self._undecided)
        text = self._undecided + text[start:]
        position, before = 0, None
        while self.state == "open" and before != (position, self._step):
            before = position, self._step
            position = self._step(text, position)
        self._undecided = text[position:] if self.state == "open" else ""
        self.unread = "".join([*self._skipped, text[position:]]) if self.state == "broken" else ""
        self.length += len(text) if self.state == "open" else position

    def end(self) -> None:
        """End the text: the closing tags that came last end the value, and the call if one of them does."""
        if self._step == self._after_end:
            self.state = "complete"
        if self._step in (self._after_value, self._after_end):
            self._end_value()

    def take_value(self) -> str:
        """Return what is new and certain of the open value, without the padding."""
        new, padding = "".join(self._fresh), self.tags.padding
        if new and not self._taken:
            self._taken = True
            new = new.removeprefix(padding)
        held = padding if padding and new.endswith(padding) else ""
        self._fresh = [held] if held else []
        return new.removesuffix(held)

    def _read_name(self, text: str, position: int) -> int:
        name, position = self._read_word(text, position)
        if name:
            self.name = name
            self._expect([self.tags.after_name] if self.tags.after_name else [], self._after_name)
        return position

    def _read_word(self, text: str, position: int) -> tuple[str, int]:
        """Read a name or a key; return an empty one if more text is needed or it is not allowed."""
        end = match_end(WORDS, text, position)
        if end < len(text) and end - position <= MAX_NAME_LENGTH:
            name = text[position:end].strip()
            if name and name.isprintable():
                return name, end
        if end < len(text) or end - position > MAX_NAME_LENGTH:
            return "", self._break(position)
        return "", position

    def _break(self, position: int) -> int:
        """Skip to the end of the call if the text is certain to be a call; otherwise it is text."""
        if self.certain:
            self._step = self._skip
        else:
            self.state = "broken"
        return position

    def _skip(self, text: str, position: int) -> int:
        """Skip what is not part of the call, up to its end or the beginning of the next one."""
        match = self._patterns.skipped.search(text, position)
        if match is None:
            end = len(text) - longest_overlap(text[position:], (self.tags.end, self.tags.opening))
            self._skipped.append(text[position:end])
            return end
        if match[0] == self.tags.end:
            self._skipped.clear()
            self.state = "complete"
            return match.end()
        self._skipped.append(text[position : match.start()])
        self.state = "broken"
        return match.start()

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
        self._break(position)
        return ""

    def _after_name(self, text: str, position: int) -> int:
        end = self._read_attributes(text, position)
        if end is None:
            return position
        self._step = self._next_tag
        return end

    def _read_attributes(self, text: str, position: int) -> int | None:
        """Return where the tag ends; ``None`` if more text is needed or the tag is too long."""
        tag_end = self.tags.tag_end
        end = text.find(tag_end, position)
        if end < 0 and len(text) - position < MAX_NAME_LENGTH + len(tag_end):
            return None
        if not 0 <= end - position <= MAX_NAME_LENGTH:
            self._break(position)
            return None
        self.marked_string = self.tags.marks_string(text[position:end])
        return end + len(tag_end)

    def _next_tag(self, text: str, position: int) -> int:
        position = match_end(_SPACE, text, position)
        # The end comes first: another tag may begin like it.
        tag = self._match_tag((self.tags.end, self.tags.before_key), text, position)
        return self._accept_tag(tag, position) if tag else position

    def _accept_tag(self, tag: str, position: int) -> int:
        if tag in self._ends:
            self.state = "complete"
        else:
            self._step = self._read_key
        return position + len(tag)

    def _read_key(self, text: str, position: int) -> int:
        key, position = self._read_word(text, position)
        if key.startswith("/"):  # a tag that ends something else
            return self._break(position)
        if key:
            self._next_key = key
            self._expect(self.tags.after_key, self._begin_value)
        return position

    def _begin_value(self, text: str, position: int) -> int:
        if not self.certain and not self._accepts(self.name):
            return self._break(position)
        end = self._read_attributes(text, position)
        if end is None:
            return position
        self.certain = True
        self.key = self._next_key
        self._step = self._read_value
        if self.tags.quotes[0]:
            self._step = self._after_quote
        elif "{key}" in self.tags.after_value:
            closing = self.tags.after_value.replace("{key}", self.key)
            self._read_up_to(closing, closing.replace("</", "<"))
        return end

    def _after_quote(self, text: str, position: int) -> int:
        """Read on after the quote that encloses the value, if there is one."""
        quote, closing = self.tags.quotes
        if text.startswith(quote, position):
            self._read_up_to(closing + self.tags.after_value)
            return position + len(quote)
        if not quote.startswith(text[position:]):
            self._step = self._read_value
        return position

    def _read_up_to(self, closing: str, opening: str = "") -> None:
        """Read a value up to its closing text; a value of the same kind may be within it."""
        self._ends_of_value = (closing, opening, self.tags.end, *self._sections) if opening else (closing,)
        self._depth = 1
        self._step = self._read_nested

    def _read_nested(self, text: str, position: int) -> int:
        found = [(text.find(each, position), each) for each in self._ends_of_value]
        start, tag = min([(start, tag) for start, tag in found if start >= 0], default=(-1, ""))
        if start < 0:
            end = len(text) - longest_overlap(text[position:], self._ends_of_value)
            self._add(text[position:end])
            return end
        if tag not in self._ends_of_value[:2]:  # the end is missing
            self._add(text[position:start])
            self._end_value()
            self._step = self._next_tag
            return start
        end = start + len(tag)
        self._depth += -1 if tag == self._ends_of_value[0] else 1
        self._add(text[position : end if self._depth else start])
        if not self._depth:
            self._end_value()
            self._step = self._next_tag
        return end

    def _read_value(self, text: str, position: int) -> int:
        match = self._patterns.end.search(text, position)
        if match is None:
            end = len(text) - self._undecided_length(text, position)
            self._add(text[position:end])
            return end
        self._add(text[position : match.start()])
        if match["line"]:
            return self._begin_of_line(text, match)
        if self.tags.special:
            self._end_value()
            self._step = self._next_tag
            return match.end() if match[0] == self.tags.after_value else match.start()
        self._closing = [match[0]]
        self._step = self._after_value if match[0] == self.tags.after_value else self._after_end
        return match.end()

    def _undecided_length(self, text: str, position: int) -> int:
        line = _LINE_END.search(text, position)
        overlap = longest_overlap(text[position:], self._patterns.ends)
        return max(overlap, len(text) - line.start() if line and not self.tags.special else 0)

    def _begin_of_line(self, text: str, match: re.Match[str]) -> int:
        """End the value if the next argument or call begins here, because the closing tag was forgotten."""
        for pattern, begins in self._patterns.forgotten:
            word, end = match_pattern(pattern, text, match.end())
            if end == len(text) < match.start() + MAX_LOOKAHEAD and word is None:
                return match.start()
            if word is not None and begins(self, word):
                return end if self.state == "open" else match.start()
        self._add(match[0])
        return match.end()

    def _begins_argument(self, key: str) -> bool:
        written = key == self.key or any(key == each for each, _ in self.arguments)
        if written or not self._is_parameter(self.name, key):
            return False
        self._end_value()
        self.key = key
        return True

    def _begins_call(self, name: str) -> bool:
        if not self._is_tool(name):
            return False
        self._end_value()
        self.state = "broken"
        return True

    def _after_value(self, text: str, position: int) -> int:
        """End the value if another tag follows; otherwise the closing tag was a part of it."""
        if space := match_end(_SPACE, text, position) - position:
            self._closing.append(text[position : position + space])
            return position + space
        for tag in (self.tags.before_key, *self._ends):
            if text.startswith(tag, position):
                self._end_value()
                return self._accept_tag(tag, position)
            if tag.startswith(text[position:]):
                return position
        self._add("".join(self._closing))
        self._step = self._read_value
        return position

    def _after_end(self, text: str, position: int) -> int:
        """End the value and the call if `TagFormat.cut` or the end of the output follows.

        Otherwise the tags were a part of the value.
        """
        if space := match_end(_SPACE, text, position) - position:
            self._closing.append(text[position : position + space])
            return position + space
        for tag in self._ends:
            if text.startswith(tag, position):
                self._closing.append(tag)
                self._end_at_cut("".join(self._closing))
                return position + len(tag)
            if tag.startswith(text[position:]):
                return position
        self._add("".join(self._closing))
        self._step = self._read_value
        return position

    def _end_at_cut(self, held: str) -> None:
        if cut := next((each for each in self.tags.cut if held.endswith(each)), ""):
            self._add(held.removesuffix(cut))
            self._end_value()
            self.state = "complete"

    def _add(self, text: str) -> None:
        self._value.append(text)
        self._fresh.append(text)

    def _end_value(self) -> None:
        padding = self.tags.padding
        value = "".join(self._value).removeprefix(padding).removesuffix(padding)
        self.arguments.append((self.key, value))
        self.marked_strings.append(self.marked_string)
        self.key = ""
        self._value, self._fresh, self._taken = [], [], False


class _Patterns(Struct, frozen=True):
    ends: Sequence[str]
    """Texts that may end a value."""
    end: re.Pattern[str]
    """What may end a value; the group ``line`` is the beginning of a line that may be a tag."""
    skipped: re.Pattern[str]
    """What may follow text that is wrong between tags."""
    forgotten: Sequence[tuple[TextPattern, Callable[[TaggedBodyScanner, str], bool]]]
    """What may follow a value without a closing tag, and what to do with the word in it."""


@cache
def _patterns(tags: TagFormat, sections: tuple[str, ...], ends: tuple[str, ...]) -> _Patterns:
    ends = (tags.after_value, *ends)
    skipped = re.compile(
        "|".join(map(re.escape, (tags.end, tags.opening, *(sections if tags.special else ()))))
    )
    if tags.special:  # any tag ends a value
        ends = (*ends, tags.before_key, *sections)
        pattern = "|".join(map(re.escape, ends))
        return _Patterns(
            ends=ends, end=re.compile(rf"(?P<line>(?!))|{pattern}"), skipped=skipped, forgotten=()
        )
    first = "".join({text[0] for text in (tags.before_key, tags.opening, *sections)})
    argument: TextPattern = [[tags.before_key], WORDS, *([each] for each in tags.after_key)]
    call: TextPattern = [
        [tags.opening],
        WORDS,
        *([[tags.after_name]] if tags.after_name else []),
        [tags.before_key, tags.end],
    ]
    begins_argument, begins_call = TaggedBodyScanner._begins_argument, TaggedBodyScanner._begins_call
    return _Patterns(
        ends=ends,
        end=re.compile(rf"(?P<line>{_INDENTATION})(?=[{re.escape(first)}])|{'|'.join(map(re.escape, ends))}"),
        skipped=skipped,
        forgotten=(
            (argument, begins_argument),
            (call, begins_call),
            *([([*[[*sections]] * count, *call], begins_call) for count in range(1, len(sections) + 1)]),
        ),
    )


def taggable(key: str) -> bool:
    """Return whether a tag can hold this key."""
    fits = WORDS.fullmatch(key) is not None and key == key.strip()
    return fits and key.isprintable() and 0 < len(key) <= MAX_NAME_LENGTH
