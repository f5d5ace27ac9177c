"""The base of most reasoning parsers, which only declare their markers.

::

    <think> reasoning </think> answer        if the prompt ends with <think>:        reasoning </think> answer
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import ClassVar, Literal

from msgspec import Struct

from fllm.constraints import AnyOf, Concat, Constraint, ConstString, Regex, TextUntil
from fllm.events import ParserEvent, Reasoning, Text
from fllm.interfaces import ParserContext
from fllm.parsing.markers import Marker, MarkerSplitter
from fllm.parsing.text_patterns import TextPattern, match_pattern
from fllm.values import ReasoningLimit

_InitialState = Literal["inside", "before", "off"]
_State = Literal["inside", "before", "after"]
_Part = str | Marker

_MAX_LOOKAHEAD = 256
"""Maximum number of characters that are held back to see whether a call follows a marker."""

SPACE = Regex(r"[ \n]{0,4}")
"""White space that models write next to a marker; limited, so that a model cannot write it forever."""


class Space(Struct, frozen=True, kw_only=True):
    """Which white space of a section is dropped; only white space next to a marker ever is."""

    start: bool = False
    """White space at the beginning."""
    end: bool = False
    """White space at the end."""
    blank: bool = False
    """All of a section that follows a marker and has nothing but white space."""


class ReasoningParserBase:
    """The base of a reasoning parser: a subclass declares the markers of its format.

    The output has sections of reasoning and of the answer, which is all text outside of the reasoning.
    Markers belong to neither. White space before the first opening marker is dropped.

    The initial state is chosen by the first of these that applies: a marker at the end of the prompt, the
    last marker in the message that the output continues, a template flag of the request, `initial_state`. If
    ``auto`` selected a parser with `template_flags`, the model may reason or not, so only a marker begins the
    reasoning.
    """

    opening: ClassVar[Sequence[str]] = ("<think>",)
    """Markers that begin the reasoning."""
    closing: ClassVar[Sequence[str]] = ("</think>",)
    """Markers that end the reasoning."""
    implicit_end: ClassVar[Sequence[str]] = ()
    """Markers that end the reasoning but belong to the answer, such as ``<tool_call>``."""
    call_beginnings: ClassVar[Sequence[TextPattern]] = ()
    """What follows an `implicit_end` that is not only mentioned; if empty, each one ends the reasoning.

    A word in such a pattern is the name of a function: one of the request's tools, if it has any.
    """
    initial_state: ClassVar[_InitialState] = "inside"
    """Where the output begins: "inside" or "before" the reasoning, which a marker must then open.

    "off" means that all of the output is the answer, and that no marker is looked for.
    """
    template_flags: ClassVar[Sequence[str]] = ()
    """Variables of the chat template that turn reasoning on or off; the first one in the request counts."""
    stray_markers: ClassVar[Literal["dropped", "text", "reasoning"]] = "dropped"
    """What becomes of markers within the reasoning: dropped or kept as text. In the answer, they are text.

    With "reasoning", an opening marker begins another section of reasoning, and other markers are dropped.
    """
    header: ClassVar[str] = ""
    """Text that is dropped if it directly follows an opening marker."""
    answer_tags: ClassVar[Sequence[str]] = ()
    """Two tags that may enclose the answer and are dropped."""
    reasoning_space: ClassVar[Space] = Space()
    answer_space: ClassVar[Space] = Space(blank=True)
    visible_tokens: ClassVar[Sequence[str]] = ()
    """Special tokens that the parser must receive as text. The default is all markers."""

    def __init_subclass__(cls) -> None:
        if "visible_tokens" not in vars(cls):
            cls.visible_tokens = (*cls.opening, *cls.closing, *cls.implicit_end, *cls.answer_tags)

    def __init__(self, context: ParserContext) -> None:
        state = self._initial_state(context)
        self._state: _State = "after" if state == "off" else state
        self._constrained = context.constrained
        self._tools = frozenset(tool.name for tool in context.tools)
        self._splitter = MarkerSplitter(self._markers(state))
        self._in_answer_tags = self._ends_in_answer_tags(context.continued_message or "")
        self._expected_header = ""
        """The header, as long as it may still follow."""
        self._after_marker = False
        """Whether the section begins after a marker, and not at the beginning of the output."""
        self._is_empty = state != "off" and not context.continued_message
        """Whether nothing of the section has been emitted."""
        self._drops_closing = False
        """Whether the next closing marker belongs to an opening one that was dropped."""
        self._held: list[_Part] = []
        """A marker that may end the reasoning, and what follows it."""
        self._pending: list[str] = []
        """Text of the section that may still be dropped."""

    def constrain_output(self, content: Constraint) -> Constraint:
        """Return the constraint of a whole output, reasoning included, whose content obeys ``content``.

        In such an output only the first opening and the first closing marker are markers, each only once.
        """
        if self._state == "after":
            return content
        rest = (TextUntil(self.closing[0]), SPACE, content)
        if self._state == "inside":
            return Concat(rest)
        return AnyOf((Concat((SPACE, ConstString(self.opening[0]), *rest)), content))

    def limit_reasoning(self, max_tokens: int) -> ReasoningLimit | None:
        """Return the limit of an output that has at most this number of reasoning tokens."""
        reopens = self.stray_markers == "reasoning" and not self._constrained
        if self._state == "after" and not reopens:
            return None
        return ReasoningLimit(
            max_tokens=max_tokens,
            opening=tuple(self.opening),
            closing=(*self.closing, *self.implicit_end),
            end=self.closing[0],
            inside=self._state == "inside",
            reopens=reopens,
        )

    def feed(self, text: str) -> list[ParserEvent]:
        """Process the next piece of output; return the events that are now certain."""
        return self._process(self._splitter.feed(text))

    def finish(self) -> list[ParserEvent]:
        """End the output: what was held back is not a marker, or it is the beginning of a call."""
        events = self._process(self._splitter.finish())
        if self._held:
            events += self._end_at_call()
        return events + self._end_section(at_marker=False)

    def _initial_state(self, context: ParserContext) -> Literal["inside", "before", "after", "off"]:
        prompt = context.prompt.rstrip()
        if prompt.endswith(tuple(self.opening)):
            return "inside"
        if prompt.endswith(tuple(self.closing)):
            return "after"
        if context.continued_message is not None:
            opened, closed = (
                _last(markers, context.continued_message) for markers in (self.opening, self.closing)
            )
            return "inside" if opened > closed else "after"
        values = (context.template_kwargs.get(flag) for flag in self.template_flags)
        enabled = next((value for value in values if value is not None), None)
        if enabled is not None and not enabled:
            return "off"
        state = self.initial_state if enabled is None else "inside"
        optional = context.auto_selected and self.template_flags
        return "before" if optional and state == "inside" else state

    def _ends_in_answer_tags(self, message: str) -> bool:
        return _last(self.answer_tags[:1], message) > _last(self.answer_tags[1:], message)

    def _markers(self, state: Literal["inside", "before", "after", "off"]) -> Sequence[str]:
        """Return the markers to search for in the text."""
        if not self._constrained:
            markers = (*self.opening, *self.closing, *self.implicit_end, *self.answer_tags)
            return () if state == "off" else markers
        return (self.opening[0], self.closing[0]) if state in ("inside", "before") else ()

    def _process(self, parts: Sequence[_Part]) -> list[ParserEvent]:
        queue, events = deque(parts), list[ParserEvent]()
        while queue:
            part = queue.popleft()
            if self._held:
                self._held.append(part)
                call = self._call_follows()
                if call:
                    events += self._end_at_call()
                elif call is False:
                    (marker, *rest), self._held = self._held, []
                    events += self._text(_text_of(marker))
                    queue.extendleft(reversed(rest))
            elif isinstance(part, Marker):
                events += self._marker(part)
            else:
                events += self._text(part)
        return events

    def _call_follows(self) -> bool | None:
        """Return whether a call follows the marker that is held back; ``None`` if more text will tell."""
        text = "".join(map(_text_of, self._held[1:]))
        matches = [match_pattern(pattern, text) for pattern in self.call_beginnings]
        if any(word is not None and self._may_be_called(word) for word, _ in matches):
            return True
        undecided = any(word is None and end == len(text) for word, end in matches)
        return None if undecided and len(text) < _MAX_LOOKAHEAD else False

    def _may_be_called(self, word: str) -> bool:
        return not word or word in (self._tools or (word,))

    def _end_at_call(self) -> list[ParserEvent]:
        """End the reasoning before the marker that is held back."""
        text = "".join(map(_text_of, self._held))
        self._held = []
        return self._begin_section("after") + self._text(text)

    def _marker(self, part: Marker) -> list[ParserEvent]:
        marker = part.text
        if marker in self.opening and self._opens_reasoning():
            return self._begin_section("inside")
        if marker in self.closing and (self._state == "inside" or self._begins_output()):
            return self._begin_section("after")
        if self._state == "inside" and marker in self.implicit_end:
            self._held = [part]
            return [] if self.call_beginnings else self._end_at_call()
        if marker in self.answer_tags and self._is_answer_tag(marker):
            return self._begin_section("after")
        return [] if self._is_dropped(marker) else self._text(marker)

    def _begins_output(self) -> bool:
        """Return whether a closing marker begins the output of a model that may reason: then it does not."""
        if self._state != "before" or not self._is_empty or self.stray_markers == "text" or self._constrained:
            return False
        self._pending = []
        return True

    def _is_dropped(self, marker: str) -> bool:
        """Return whether a marker in the wrong place is not part of the text."""
        if marker not in (*self.opening, *self.closing) or self._constrained:
            return False
        if self._state == "inside" or self.stray_markers == "reasoning":
            return self.stray_markers != "text"
        if self._state == "after" and self._is_empty and not self._after_marker:
            self._drops_closing = marker in self.opening  # the prompt closed the reasoning, and it goes on
            return True
        dropped = self._drops_closing and marker in self.closing
        self._drops_closing = self._drops_closing and not dropped
        return dropped

    def _opens_reasoning(self) -> bool:
        """Return whether an opening marker is in its place; drop what is pending before the first one."""
        if self._state != "after" and self._is_empty and not self._after_marker:
            self._pending = []
            return True
        return self._state != "inside" and self.stray_markers == "reasoning" and not self._constrained

    def _is_answer_tag(self, marker: str) -> bool:
        """Return whether this tag is in its place around the answer, and note that it was read."""
        opens = marker == self.answer_tags[0]
        if self._state == "inside" or opens == self._in_answer_tags or (opens and not self._is_empty):
            return False
        self._in_answer_tags = opens
        return True

    def _begin_section(self, state: Literal["inside", "after"]) -> list[ParserEvent]:
        """Begin a section after a marker; return the events that end the previous one."""
        events = self._end_section(at_marker=True)
        self._state = state
        self._expected_header = self.header if state == "inside" else ""
        self._after_marker = self._is_empty = True
        return events

    def _end_section(self, *, at_marker: bool) -> list[ParserEvent]:
        """End a section, before a marker or at the end of the output."""
        pending = self._take_pending()
        space = self._space
        drop_start = self._is_empty and self._after_marker and (space.start or space.blank)
        drop_end = at_marker and space.end
        return [] if pending.isspace() and (drop_start or drop_end) else self._emit(pending)

    def _text(self, text: str) -> list[ParserEvent]:
        """Process text of a section; white space is held back while it may be dropped."""
        if self._expected_header:
            text = self._take_pending() + text
            if self._expected_header != text and self._expected_header.startswith(text):
                self._pending = [text]
                return []
            text, self._expected_header = text.removeprefix(self._expected_header), ""
        if not text.strip() and (self._may_drop_start if self._is_empty else self._space.end):
            self._pending.append(text)
            return []
        text = self._take_pending() + text
        if self._is_empty:
            text = text.lstrip() if self._after_marker and self._space.start else text
            self._is_empty = False
        certain = text.rstrip() if self._space.end else text
        self._pending = [text[len(certain) :]]
        return self._emit(certain)

    def _take_pending(self) -> str:
        pending, self._pending = "".join(self._pending), []
        return pending

    @property
    def _may_drop_start(self) -> bool:
        """Whether white space at the beginning of this section may be dropped."""
        return not self._after_marker or self._space.start or self._space.blank or bool(self.answer_tags)

    @property
    def _space(self) -> Space:
        if self._state == "inside":
            return self.reasoning_space
        # The white space that `constrain_output` allows before constrained content does not belong to it.
        return Space(start=True) if self._constrained else self.answer_space

    def _emit(self, text: str) -> list[ParserEvent]:
        if not text:
            return []
        return [Reasoning(text) if self._state == "inside" else Text(text)]


def _text_of(part: _Part) -> str:
    return part if isinstance(part, str) else part.text


def _last(markers: Sequence[str], text: str) -> int:
    """Return where the last of the markers in ``text`` begins; -1 if there is none."""
    return max((text.rfind(marker) for marker in markers), default=-1)
