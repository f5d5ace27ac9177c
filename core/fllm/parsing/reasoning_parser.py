"""The base of most reasoning parsers, which only declare their markers.

::

    <think> reasoning </think> answer        if the prompt ends with <think>:        reasoning </think> answer
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from msgspec import Struct

from fllm.constraints import AnyOf, Concat, Constraint, ConstString, Regex, TextUntil
from fllm.events import ParserEvent, Reasoning, Text
from fllm.interfaces import ParserContext
from fllm.parsing.markers import Marker, MarkerSplitter

_InitialState = Literal["inside", "before", "off"]
_State = Literal["inside", "before", "after"]

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

    The initial state is chosen by the first of these that applies: a marker at the end of the prompt, a
    template flag of the request, `initial_state`. If ``auto`` selected a parser with `template_flags`, the
    model may reason or not, so only a marker begins the reasoning.
    """

    opening: ClassVar[Sequence[str]] = ("<think>",)
    """Markers that begin the reasoning."""
    closing: ClassVar[Sequence[str]] = ("</think>",)
    """Markers that end the reasoning."""
    implicit_end: ClassVar[Sequence[str]] = ()
    """Markers that end the reasoning but belong to the answer, such as ``<tool_call>``."""
    initial_state: ClassVar[_InitialState] = "inside"
    """Where the output begins: "inside" or "before" the reasoning, which a marker must then open.

    "off" means that all of the output is the answer, and that no marker is looked for.
    """
    template_flags: ClassVar[Sequence[str]] = ()
    """Variables of the chat template that turn reasoning on or off; the first one in the request counts."""
    stray_markers: ClassVar[Literal["dropped", "text", "reasoning"]] = "dropped"
    """What becomes of markers in the wrong place: dropped or kept as text.

    With "reasoning", an opening marker begins another section of reasoning, and other markers are dropped.
    """
    header: ClassVar[str] = ""
    """Text that is dropped if it directly follows an opening marker."""
    answer_tags: ClassVar[Sequence[str]] = ()
    """Two tags that may enclose the answer and are dropped."""
    reasoning_space: ClassVar[Space] = Space()
    answer_space: ClassVar[Space] = Space(blank=True)
    visible_tokens: ClassVar[Sequence[str]] = ()
    """Special tokens that the parser must receive as text: all markers."""

    def __init_subclass__(cls) -> None:
        cls.visible_tokens = (*cls.opening, *cls.closing, *cls.implicit_end, *cls.answer_tags)

    def __init__(self, context: ParserContext) -> None:
        state = self._initial_state(context)
        self._state: _State = "after" if state == "off" else state
        self._constrained = context.constrained
        self._splitter = MarkerSplitter(self._markers(state))
        self._in_answer_tags = False
        self._expected_header = ""
        """The header, as long as it may still follow."""
        self._after_marker = False
        """Whether the section begins after a marker, and not at the beginning of the output."""
        self._is_empty = state != "off"
        """Whether nothing of the section has been emitted."""
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

    def feed(self, text: str) -> list[ParserEvent]:
        """Process the next piece of output; return the events that are now certain."""
        return [event for part in self._splitter.feed(text) for event in self._process(part)]

    def finish(self) -> list[ParserEvent]:
        """End the output: what was held back is not a marker."""
        events = [event for part in self._splitter.finish() for event in self._process(part)]
        return events + self._end_section(at_marker=False)

    def _initial_state(self, context: ParserContext) -> Literal["inside", "before", "after", "off"]:
        prompt = context.prompt.rstrip()
        if prompt.endswith(tuple(self.opening)):
            return "inside"
        if prompt.endswith(tuple(self.closing)):
            return "after"
        values = (context.template_kwargs.get(flag) for flag in self.template_flags)
        enabled = next((value for value in values if value is not None), None)
        if enabled is not None and not enabled:
            return "off"
        state = self.initial_state if enabled is None else "inside"
        optional = context.auto_selected and self.template_flags
        return "before" if optional and state == "inside" else state

    def _markers(self, state: Literal["inside", "before", "after", "off"]) -> Sequence[str]:
        """Return the markers to search for in the text."""
        if not self._constrained:
            return () if state == "off" else self.visible_tokens
        return (self.opening[0], self.closing[0]) if state in ("inside", "before") else ()

    def _process(self, part: str | Marker) -> list[ParserEvent]:
        return self._marker(part.text) if isinstance(part, Marker) else self._text(part)

    def _marker(self, marker: str) -> list[ParserEvent]:
        if marker in self.opening and self._opens_reasoning():
            return self._begin_section("inside")
        if self._state == "inside" and marker in self.closing:
            return self._begin_section("after")
        if self._state == "inside" and marker in self.implicit_end:
            return self._begin_section("after") + self._text(marker)
        if marker in self.answer_tags and self._is_answer_tag(marker):
            return self._begin_section("after")
        keep = self.stray_markers == "text" or self._constrained
        return [] if marker in (*self.opening, *self.closing) and not keep else self._text(marker)

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
