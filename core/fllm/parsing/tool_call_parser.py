"""What most tool-call parsers are: markers, something that reads what is behind them, and a small function.

::

    prose  around  opening body closing  opening body closing  around  prose

A parser declares the markers and the rest; `ToolCallParser` does what all have in common.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, Protocol

from msgspec import Struct

from fllm.events import ParserEvent, Text, ToolArguments, ToolStart, merged
from fllm.interfaces import ParserContext
from fllm.parsing.markers import Marker, MarkerSplitter
from fllm.structured_output.tool_format import ToolFormat

Part = str | Marker

AT_ONCE = 4096
"""Characters taken at once: the rest of a part is copied behind each call in it."""


class Call(Struct, frozen=True):
    """A call that was read."""

    name: str
    arguments: str
    """JSON text."""
    id: str | None = None
    """Where the model gave it one."""


class BodyScanner(Protocol):
    """Recognises one body, fed in pieces of any size; the outcome depends on the text alone.

    It must look at each character a bounded number of times, and give up where another call begins, lest a
    text of beginnings without ends be read again and again.
    """

    @property
    def state(self) -> Literal["open", "complete", "broken"]:
        """What is known by now."""
        ...

    @property
    def length(self) -> int:
        """Characters read so far; of a complete body, its length."""
        ...

    def feed(self, text: str, start: int = 0) -> None:
        """Read on, from ``start`` in ``text``, until the body ends or breaks or the text does."""
        ...


class ToolCallParser:
    """The base of a tool-call parser.

    What is no call is text, word for word. Of what is beside a call, markers are dropped, and white space
    between two calls, before the first if the text begins with it, and behind the last if it ends with it. A
    call is emitted when its body is complete; one that is broken or cut off is text, and reading goes on
    behind its marker.
    """

    opening: ClassVar[Sequence[str]] = ()
    """Each begins a call."""
    closing: ClassVar[Sequence[str]] = ()
    """Each ends what an opening marker began; it may be missing. Where no call ends, it is text."""
    section_markers: ClassVar[Sequence[str]] = ()
    """These mean nothing more than that calls are near."""
    inner_markers: ClassVar[Sequence[str]] = ()
    """Markers within a body: its reader takes them as text."""
    ignored_section: ClassVar[tuple[str, str] | None] = None
    """Between these two, such as the tags of reasoning, nothing is a call. They are text themselves."""
    skip_before: ClassVar[str] = ""
    """Characters that may stand before a body, beside white space."""
    skip_after: ClassVar[str] = ""
    """The same behind one."""
    multiple_calls: ClassVar[bool] = False
    """Behind an opening marker there may be several bodies, one after the other."""
    marker_optional: ClassVar[bool] = False
    """A text, or what follows the end of an `ignored_section`, may begin with a body, without any marker."""
    tool_format: ClassVar[ToolFormat | None] = None
    """How the model writes its calls, where that can be said."""
    visible_tokens: ClassVar[Sequence[str]] = ()
    """All markers, unless a parser says otherwise: they may be special tokens."""

    _lead: ClassVar[re.Pattern[str]]
    _glue: ClassVar[re.Pattern[str]]
    _trail: ClassVar[re.Pattern[str]]

    def __init_subclass__(cls) -> None:
        if "visible_tokens" not in vars(cls):
            cls.visible_tokens = (*cls.opening, *cls.closing, *cls.section_markers, *cls.inner_markers)
        cls._lead = re.compile(_run(cls.skip_before))
        cls._glue = re.compile(_run(cls.skip_before + cls.skip_after))
        cls._trail = re.compile(rf"(?:\s*+[{re.escape(cls.skip_after)}])*" if cls.skip_after else "")

    def __init__(self, context: ParserContext) -> None:
        self.context = context
        self.marker = ""
        """The opening marker of the latest body; empty where there is none."""
        self._splitter = MarkerSplitter(
            (*self.opening, *self.closing, *self.section_markers, *(self.ignored_section or ()))
        )
        self._events: list[ParserEvent] = []
        self._calls = 0
        self._attempt: _Attempt | None = None
        self._held: list[Part] = []
        """What came since the last prose or call, and is dropped if a call follows."""
        self._near: Literal["beginning", "call", "prose", "aside"] = "beginning"
        """What came last, but for what is held."""
        self._may_begin = self.marker_optional
        """The next body needs no marker."""

    def new_scanner(self) -> BodyScanner:
        """A new reader for what is behind the `marker`."""
        raise NotImplementedError

    def parse_body(self, body: str) -> Sequence[Call] | None:
        """The calls of a complete body behind the `marker`; none, if it is text after all."""
        raise NotImplementedError

    def feed(self, text: str) -> list[ParserEvent]:
        """Take the next piece; give what is now certain."""
        for at in range(0, len(text), AT_ONCE):
            self._take(self._splitter.feed(text[at : at + AT_ONCE]))
        return self._given()

    def finish(self) -> list[ParserEvent]:
        """No more will come: what was held back is text, unless it only followed a call."""
        self._take(self._splitter.finish())
        while self._attempt:
            self._take(self._give_up(self._attempt))
        if self._near != "call":
            self._prose("")
        return self._given()

    def _given(self) -> list[ParserEvent]:
        events, self._events = self._events, []
        return merged(events)

    def _take(self, parts: Iterable[Part]) -> None:
        waiting = deque(parts)
        while waiting:
            part = waiting.popleft()
            again = self._read_on(self._attempt, part) if self._attempt else self._outside(part)
            waiting.extendleft(reversed(again))

    def _outside(self, part: Part) -> Sequence[Part]:
        """Take a part while no call has begun; give what is to be taken again."""
        if self._near == "aside" or (self.ignored_section and _written(part) == self.ignored_section[0]):
            self._pass_by(_written(part))
        elif isinstance(part, str):
            return self._text(part)
        elif part.text in self.opening:
            self._attempt = _Attempt(part)
        elif part.text in self.section_markers or self._near == "call":
            self._held.append(part)
            self._may_begin = self._may_begin and part.text not in self.closing
        else:
            self._prose(part.text)
        return ()

    def _pass_by(self, text: str) -> None:
        self._prose(text)
        self._near = "aside"
        if self.ignored_section and text == self.ignored_section[1]:
            self._near, self._may_begin = "beginning", self.marker_optional

    def _text(self, text: str) -> Sequence[Part]:
        glue = _end(self._glue if self._may_begin or self._near == "call" else _SPACE, text)
        if self._near == "prose" and (not self._held or glue < len(text)):
            self._prose(text)
            return ()
        if glue:
            self._held.append(text[:glue])
        if glue < len(text) and self._may_begin:
            self._attempt = _Attempt(None)
            return (text[glue:],)
        if glue < len(text):
            self._prose(text[glue:])
        return ()

    def _prose(self, text: str) -> None:
        """Emit text, and of what was held back before it all that did not belong to a call."""
        held = "".join(map(_written, self._held))
        if self._near == "call":
            held = "".join(map(_written, _behind_markers(self._held)))
            held = held[_end(self._trail, held) :]
        self._events.append(Text(held + text))
        self._held = []
        self._near, self._may_begin = "prose", False

    def _read_on(self, attempt: _Attempt, part: Part) -> Sequence[Part]:
        """Take a part that may be of a body; give what is to be taken again."""
        attempt.parts.append(part)
        text, start = _written(part), 0
        if attempt.scanner is None:
            start = _end(self._lead, text)
            if start == len(text):
                return ()
            self.marker = attempt.marker
            attempt.scanner = self.new_scanner()
        before = attempt.scanner.length
        attempt.scanner.feed(text, start)
        end = start + attempt.scanner.length - before
        attempt.body.append(text[start:end])
        if attempt.scanner.state == "open":
            return ()
        if attempt.scanner.state == "complete" and (calls := self.parse_body("".join(attempt.body))):
            self._emit(calls)
            return (text[end:],) if end < len(text) else ()
        return self._give_up(attempt)

    def _emit(self, calls: Sequence[Call]) -> None:
        for call in calls:
            start = ToolStart(self._calls, call.name, call.id)
            self._events += start, ToolArguments(self._calls, call.arguments)
            self._calls += 1
        self._attempt = None
        self._held = []
        self._near, self._may_begin = "call", self.multiple_calls

    def _give_up(self, attempt: _Attempt) -> Sequence[Part]:
        """It was no call: its marker is text, and what is behind it may be anything."""
        self._attempt = None
        self._prose(attempt.marker)
        return attempt.parts


class _Attempt(Struct):
    """What may become a call."""

    opening: Marker | None
    parts: list[Part] = []
    """All that came behind the marker."""
    scanner: BodyScanner | None = None
    """From the first character of the body on."""
    body: list[str] = []

    @property
    def marker(self) -> str:
        return self.opening.text if self.opening else ""


def _run(characters: str) -> str:
    return rf"[\s{re.escape(characters)}]*+"


_SPACE = re.compile(_run(""))


def _end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    assert match is not None  # these patterns match the empty text
    return match.end()


def _written(part: Part) -> str:
    return part if isinstance(part, str) else part.text


def _behind_markers(parts: Sequence[Part]) -> Sequence[Part]:
    last = max((i for i, part in enumerate(parts) if isinstance(part, Marker)), default=-1)
    return parts[last + 1 :]
