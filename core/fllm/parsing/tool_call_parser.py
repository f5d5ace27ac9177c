"""The base of most tool-call parsers, which declare their markers and how to read what follows one.

::

    text  section_marker  opening body closing  opening body closing  section_marker  text
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, Literal, TypeVar

from msgspec import Struct

from fllm.events import ParserEvent, Text, ToolArguments, ToolStart, merge_events
from fllm.interfaces import ParserContext
from fllm.parsing.body_scanner import BodyScanner, match_end
from fllm.parsing.markers import Marker, MarkerSplitter
from fllm.structured_output.tool_format import ToolFormat

_Part = str | Marker
_Scanner = TypeVar("_Scanner", bound=BodyScanner)

_CHUNK_LENGTH = 4096
"""Characters processed at once. After each call, the rest of a chunk is copied, so chunks must be small."""


class Call(Struct, frozen=True):
    """A tool call that the model wrote."""

    name: str
    arguments: str
    """The arguments as JSON text."""
    id: str | None = None
    """The call ID, if the model wrote one."""


class ToolCallParser(Generic[_Scanner]):
    """The base of a tool-call parser; its type parameter is the scanner that reads the body of a call.

    A subclass declares the markers of its format and defines `new_scanner` and `parse_body`. The base does
    the rest:

    - Text that is not part of a call is emitted word for word, as soon as it cannot become a marker.
    - A call is emitted when its body is complete. A broken or unfinished call is emitted as text, and parsing
      continues after its opening marker.
    - Around calls, markers are dropped. So is white space between two calls, before the first call if the
      output begins with it, and after the last call if the output ends with it.
    """

    opening: ClassVar[Sequence[str]] = ()
    """Markers that begin a call."""
    closing: ClassVar[Sequence[str]] = ()
    """Markers that end a call. They are optional; where no call precedes them, they are text."""
    section_markers: ClassVar[Sequence[str]] = ()
    """Markers that stand around calls and mean nothing themselves, such as those of a section of calls."""
    inner_markers: ClassVar[Sequence[str]] = ()
    """Markers within a body; the scanner receives them as text."""
    ignored_section: ClassVar[tuple[str, str] | None] = None
    """Two markers, such as the tags of reasoning, between which nothing is a call. Both are text."""
    skip_before: ClassVar[str] = ""
    """Characters that may precede a body, in addition to white space."""
    skip_after: ClassVar[str] = ""
    """Characters that may follow a body, in addition to white space."""
    multiple_calls: ClassVar[bool] = False
    """Whether several bodies may follow one opening marker."""
    marker_optional: ClassVar[bool] = False
    """Whether the output, or the text after an `ignored_section`, may begin with a body without a marker."""
    tool_format: ClassVar[ToolFormat | None] = None
    """How the model writes its calls, for constrained decoding; ``None`` if that cannot be described."""
    visible_tokens: ClassVar[Sequence[str]] = ()
    """Special tokens that the parser must receive as text. The default is all markers."""

    _before_body: ClassVar[re.Pattern[str]]
    _separator: ClassVar[re.Pattern[str]]
    _after_last_call: ClassVar[re.Pattern[str]]

    def __init_subclass__(cls) -> None:
        if "visible_tokens" not in vars(cls):
            cls.visible_tokens = (*cls.opening, *cls.closing, *cls.section_markers, *cls.inner_markers)
        cls._before_body = re.compile(_run_of(cls.skip_before))
        cls._separator = re.compile(_run_of(cls.skip_before + cls.skip_after))
        cls._after_last_call = re.compile(
            rf"(?:\s*+[{re.escape(cls.skip_after)}])*" if cls.skip_after else ""
        )

    def __init__(self, context: ParserContext) -> None:
        self.context = context
        self.marker = ""
        """The opening marker of the current body; empty if there is none."""
        self.call_count = 0
        """Number of calls emitted so far."""
        self._splitter = MarkerSplitter(
            (*self.opening, *self.closing, *self.section_markers, *(self.ignored_section or ()))
        )
        self._events: list[ParserEvent] = []
        self._partial_call: _PartialCall[_Scanner] | None = None
        self._pending: list[_Part] = []
        """What followed the last emitted text or call. It is dropped if a call follows."""
        self._last_seen: Literal["start", "call", "text", "ignored"] = "start"
        """What came last, except for what is pending."""
        self._body_may_follow = self.marker_optional
        """Whether the next body needs no marker."""

    def new_scanner(self) -> _Scanner:
        """Return a new scanner for the body that follows `marker`."""
        raise NotImplementedError

    def parse_body(self, scanner: _Scanner) -> Sequence[Call]:
        """Return the calls of the complete body that ``scanner`` has read; none if it is text after all."""
        raise NotImplementedError

    @property
    def follows_text(self) -> bool:
        """Whether the current body comes after text, and not after another call or at the beginning."""
        return self._last_seen == "text"

    def feed(self, text: str) -> list[ParserEvent]:
        """Process the next piece of output; return the events that are now certain."""
        for start in range(0, len(text), _CHUNK_LENGTH):
            self._process(self._splitter.feed(text[start : start + _CHUNK_LENGTH]))
        return self._take_events()

    def finish(self) -> list[ParserEvent]:
        """End the output: what was held back is text, unless it only followed a call."""
        self._process(self._splitter.finish())
        while self._partial_call:
            self._process(self._reject(self._partial_call))
        if self._last_seen != "call":
            self._emit_text("")
        return self._take_events()

    def _take_events(self) -> list[ParserEvent]:
        events, self._events = self._events, []
        return merge_events(events)

    def _process(self, parts: Iterable[_Part]) -> None:
        queue = deque(parts)
        while queue:
            part = queue.popleft()
            rest = (
                self._feed_body(self._partial_call, part) if self._partial_call else self._outside_call(part)
            )
            queue.extendleft(reversed(rest))

    def _outside_call(self, part: _Part) -> Sequence[_Part]:
        """Process a part while no call is open; return the parts to process again."""
        if self._last_seen == "ignored" or (
            self.ignored_section and _text_of(part) == self.ignored_section[0]
        ):
            self._emit_ignored(_text_of(part))
        elif isinstance(part, str):
            return self._text(part)
        elif part.text in self.opening:
            self._partial_call = _PartialCall(part)
        elif part.text in self.section_markers or self._last_seen == "call":
            self._pending.append(part)
            self._body_may_follow = self._body_may_follow and part.text not in self.closing
        else:
            self._emit_text(part.text)
        return ()

    def _emit_ignored(self, text: str) -> None:
        """Emit text of an ignored section."""
        self._emit_text(text)
        self._last_seen = "ignored"
        if self.ignored_section and text == self.ignored_section[1]:
            self._last_seen, self._body_may_follow = "start", self.marker_optional

    def _text(self, text: str) -> Sequence[_Part]:
        separates = self._body_may_follow or self._last_seen == "call"
        body = match_end(self._separator if separates else _SPACE, text)
        if self._last_seen == "text" and (not self._pending or body < len(text)):
            self._emit_text(text)
            return ()
        if body:
            self._pending.append(text[:body])
        if body < len(text) and self._body_may_follow:
            self._partial_call = _PartialCall(None)
            return (text[body:],)
        if body < len(text):
            self._emit_text(text[body:])
        return ()

    def _emit_text(self, text: str) -> None:
        """Emit text, preceded by what is pending and did not belong to a call."""
        pending = "".join(map(_text_of, self._pending))
        if self._last_seen == "call":
            pending = "".join(map(_text_of, _after_last_marker(self._pending)))
            pending = pending[match_end(self._after_last_call, pending) :]
        self._events.append(Text(pending + text))
        self._pending = []
        self._last_seen, self._body_may_follow = "text", False

    def _feed_body(self, partial: _PartialCall[_Scanner], part: _Part) -> Sequence[_Part]:
        """Process a part that may belong to a body; return the parts to process again."""
        partial.parts.append(part)
        text, start = _text_of(part), 0
        if partial.scanner is None:
            start = match_end(self._before_body, text)
            if start == len(text):
                return ()
            self.marker = partial.marker
            partial.scanner = self.new_scanner()
        scanner = partial.scanner
        before = scanner.length
        scanner.feed(text, start)
        if scanner.state == "open":
            return ()
        if scanner.state == "complete" and (calls := self.parse_body(scanner)):
            self._emit_calls(calls)
            end = start + scanner.length - before
            return (text[end:],) if end < len(text) else ()
        return self._reject(partial)

    def _emit_calls(self, calls: Sequence[Call]) -> None:
        for call in calls:
            start = ToolStart(self.call_count, call.name, call.id)
            self._events += start, ToolArguments(self.call_count, call.arguments)
            self.call_count += 1
        self._partial_call = None
        self._pending = []
        self._last_seen, self._body_may_follow = "call", self.multiple_calls

    def _reject(self, partial: _PartialCall[_Scanner]) -> Sequence[_Part]:
        """Emit the opening marker of what is not a call as text; return what follows it."""
        self._partial_call = None
        self._emit_text(partial.marker)
        return partial.parts


class _PartialCall(Struct, Generic[_Scanner]):
    """The text from an opening marker on, which may become a call."""

    opening: Marker | None
    parts: list[_Part] = []
    """All parts that followed the marker."""
    scanner: _Scanner | None = None
    """The scanner of the body; ``None`` until the body begins."""

    @property
    def marker(self) -> str:
        return self.opening.text if self.opening else ""


def _run_of(characters: str) -> str:
    """Return a pattern for any number of white-space characters and ``characters``."""
    return rf"[\s{re.escape(characters)}]*+"


_SPACE = re.compile(_run_of(""))


def _text_of(part: _Part) -> str:
    return part if isinstance(part, str) else part.text


def _after_last_marker(parts: Sequence[_Part]) -> Sequence[_Part]:
    last = max((i for i, part in enumerate(parts) if isinstance(part, Marker)), default=-1)
    return parts[last + 1 :]
