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

    A subclass declares the markers of its format and defines `new_scanner`, and `stream_body` or
    `parse_body`. The base does the rest:

    - Text that is not part of a call is emitted word for word, as soon as it cannot become a marker.
    - A call that `stream_body` begins is emitted as it arrives. If its body breaks, `break_body` completes
      its arguments, and text follows. If the output ends within it, `cut_body` adds what is left.
    - A call that `parse_body` returns is emitted when its body is complete. If that body is broken, it is
      emitted as text, and parsing continues after its opening marker.
    - If the output ends within a body of which no call was begun, or at its opening marker, that is dropped,
      unless it may be prose: a marker of a single character, or a body without a marker after no call.
      Half a marker after a call or another marker is dropped, too.
    - Around calls, markers are dropped. So is white space between two calls, before the first call if the
      output begins with it, and after the last call if the output ends with it. So are an opening and a
      closing marker with nothing in between.
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
        # An empty list is not a body.
        ends_list = "]" if "[" in cls.skip_before else ""
        cls._before_body = re.compile(_run_of(cls.skip_before + ends_list))
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
        self.calls_in_body = 0
        """Number of calls of the current body emitted so far."""
        self._splitter = self._new_splitter()
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

    def stream_body(self, scanner: _Scanner) -> None:
        """Emit what has become certain of the body, with `begin_call` and `add_arguments`.

        It is called whenever the scanner has read more. The result must depend on the text that was read, not
        on how it was divided. By default nothing is certain before the body is complete.
        """

    def cut_body(self, scanner: _Scanner) -> None:
        """End a body that the end of the output cut off: add the arguments as far as they came.

        Begin the call if its name is complete. By default, a call that was not begun is text.
        """

    def break_body(self, scanner: _Scanner, rest: str) -> str:
        """End a broken body of which a call was begun: add what makes its arguments JSON.

        Return the text after the call: what the scanner has read of it, and ``rest``, which it has not read.
        """
        return rest

    def looks_like_call(self, scanner: _Scanner) -> bool:
        """Return whether an incomplete body without a marker is the beginning of a call, and not text.

        By default, it is if it follows another call.
        """
        return self.follows_call

    def begins_next_call(self, scanner: _Scanner, marker: str) -> bool:
        """Return whether an opening marker here begins the next call, although the body is open."""
        return False

    def parse_body(self, scanner: _Scanner) -> Sequence[Call]:
        """Return the calls of a complete body of which none was begun; none if it is text after all."""
        return ()

    def call_without_arguments(self, scanner: _Scanner) -> Call | None:
        """Return the call if a marker here ends one without arguments, although the body is open."""
        return None

    def begin_call(self, name: str, call_id: str | None = None) -> None:
        """Emit the start of a call. From then on, the body can't become text any more."""
        self._events.append(ToolStart(self.call_count, name, call_id))
        self.call_count += 1
        self.calls_in_body += 1

    def add_arguments(self, text: str) -> None:
        """Emit a piece of the JSON text of the arguments of the current call."""
        self._events.append(ToolArguments(self.call_count - 1, text))

    def may_begin(self, marker: str) -> bool:
        """Return whether a call may begin with this opening marker here; otherwise the marker is text."""
        return True

    @property
    def pending_markers(self) -> list[str]:
        """The section markers and closing markers since the last text or call."""
        return [part.text for part in self._pending if isinstance(part, Marker)]

    def is_tool(self, name: str) -> bool:
        """Return whether the request has a tool of this name."""
        return any(tool.name == name for tool in self.context.tools)

    @property
    def follows_call(self) -> bool:
        """Whether the current body comes after another call."""
        return self._last_seen == "call"

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
        half_marker = self._splitter.finish()
        if not self._only_markers_precede:
            self._process(half_marker)
        while partial := self._partial_call:
            if partial.scanner:
                self.cut_body(partial.scanner)
            if partial.scanner and (self.calls_in_body or self._is_unfinished(partial)):
                self._end_body()  # the beginning of a call is not content
            elif self._is_unfinished(partial):
                self._partial_call, self._pending = None, []
            else:
                self._process(self._reject(partial))
        if self._last_seen != "call":
            self._pending = self._pending[: _first_marker(self._pending)]
            self._emit_text("")
        return self._take_events()

    @property
    def _only_markers_precede(self) -> bool:
        """Whether only white space follows a marker or a call, so that half a marker is not content."""
        if self._partial_call:
            return self._partial_call.scanner is None and self._is_unfinished(self._partial_call)
        return self._last_seen == "call" or _first_marker(self._pending) < len(self._pending)

    def _is_unfinished(self, partial: _PartialCall[_Scanner]) -> bool:
        """Return whether the text may be the beginning of a call, which has not ended."""
        if any(isinstance(part, Marker) and part.text in self.closing for part in partial.parts):
            return False
        if partial.scanner and not partial.marker:
            return self.looks_like_call(partial.scanner)
        return len(partial.marker) > 1 or bool(self.pending_markers)

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
            self._open(part)
        elif part.text in self.section_markers or self._last_seen == "call":
            self._pending.append(part)
            self._body_may_follow = self._body_may_follow and part.text not in self.closing
        elif not (part.text in self.closing and self._drop_empty_section()):
            self._emit_text(part.text)
        return ()

    def _open(self, marker: Marker) -> None:
        if self.may_begin(marker.text):
            self._partial_call = _PartialCall(marker)
        else:
            self._emit_text(marker.text)

    def _drop_empty_section(self) -> bool:
        """Drop a pending section marker that only white space follows; return whether there is one."""
        for index in range(len(self._pending) - 1, -1, -1):
            part = self._pending[index]
            if isinstance(part, str) and part.isspace():
                continue
            if isinstance(part, str) or not is_whole_tag(part.text):
                break
            del self._pending[index:]
            return True
        return False

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
            if isinstance(part, Marker) and part.text in self.closing and is_whole_tag(partial.marker):
                return self._drop_empty(part)
            self.marker = partial.marker
            partial.scanner = self.new_scanner()
            self.calls_in_body = 0
        scanner = partial.scanner
        if self._is_opening(part) and self.begins_next_call(scanner, text):
            if not self.calls_in_body:
                call = self.call_without_arguments(scanner)
                return (
                    self._end_with(call, part) if call and self.is_tool(call.name) else self._reject(partial)
                )
            rest = self.break_body(scanner, "")
            self._end_body()
            return (*self._split_again(rest), part)
        closes = not self.calls_in_body and isinstance(part, Marker) and part.text in self.closing
        if closes and (call := self.call_without_arguments(scanner)):
            return self._end_with(call, part)
        before = scanner.length
        scanner.feed(text, start)
        self.stream_body(scanner)
        if self.calls_in_body:
            return self._stream(partial, scanner, text[max(start + scanner.length - before, 0) :])
        if scanner.state == "open":
            return ()
        if scanner.state == "complete" and (calls := self.parse_body(scanner)):
            for call in calls:
                self._emit(call)
            return self._stream(partial, scanner, text[max(start + scanner.length - before, 0) :])
        return self._reject(partial)

    def _new_splitter(self) -> MarkerSplitter:
        return MarkerSplitter(
            (*self.opening, *self.closing, *self.section_markers, *(self.ignored_section or ()))
        )

    def _split_again(self, text: str) -> Sequence[_Part]:
        """Return the parts of a text whose markers were read as a part of a body."""
        splitter = self._new_splitter()
        return (*splitter.feed(text), *splitter.finish())

    def _is_opening(self, part: _Part) -> bool:
        return isinstance(part, Marker) and part.text in (*self.opening, *self.section_markers)

    def _stream(self, partial: _PartialCall[_Scanner], scanner: _Scanner, rest: str) -> Sequence[_Part]:
        """End the body unless it is open; return the text after it."""
        partial.parts.clear()
        if scanner.state == "open":
            return ()
        if scanner.state == "broken":
            rest = self.break_body(scanner, rest)
        self._end_body()
        return self._split_again(rest) if scanner.state == "broken" else [rest] if rest else ()

    def _end_with(self, call: Call, marker: _Part) -> Sequence[_Part]:
        self._emit(call)
        self._end_body()
        return (marker,)

    def _emit(self, call: Call) -> None:
        self.begin_call(call.name, call.id)
        self.add_arguments(call.arguments)

    def _end_body(self) -> None:
        self._partial_call = None
        self._pending = []
        self._last_seen, self._body_may_follow = "call", self.multiple_calls

    def _drop_empty(self, closing: Marker) -> Sequence[_Part]:
        """Drop an opening marker that the closing marker follows."""
        self._partial_call = None
        if self._last_seen == "call":
            self._pending.append(closing)
        return ()

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


def is_whole_tag(marker: str) -> bool:
    """Return whether a marker is a tag, and not the beginning of one, such as ``<function=``."""
    return marker.endswith((">", "]"))


def _run_of(characters: str) -> str:
    """Return a pattern for any number of white-space characters and ``characters``."""
    return rf"[\s{re.escape(characters)}]*+"


_SPACE = re.compile(_run_of(""))


def _text_of(part: _Part) -> str:
    return part if isinstance(part, str) else part.text


def _after_last_marker(parts: Sequence[_Part]) -> Sequence[_Part]:
    last = max((i for i, part in enumerate(parts) if isinstance(part, Marker)), default=-1)
    return parts[last + 1 :]


def _first_marker(parts: Sequence[_Part]) -> int:
    """Return the index of the first marker; the number of parts if there is none."""
    return next((i for i, part in enumerate(parts) if isinstance(part, Marker)), len(parts))
