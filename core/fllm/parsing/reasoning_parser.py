"""Reasoning between markers: what most reasoning parsers are, so that each is a declaration.

::

    <think> why </think> what        or, where the prompt has opened it:        why </think> what
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from msgspec import Struct

from fllm.constraints import AnyOf, Concat, Constraint, ConstString, Regex, TextUntil
from fllm.events import ParserEvent, Reasoning, Text
from fllm.interfaces import ParserContext
from fllm.parsing.markers import Marker, MarkerSplitter

Beginning = Literal["inside", "before", "off"]

SPACE = Regex(r"[ \n]{0,4}")
"""What models write beside a marker; not more, lest one writes nothing else."""


class Space(Struct, frozen=True, kw_only=True):
    """Which white space of a part is dropped; only what stands next to a marker."""

    start: bool = False
    end: bool = False
    blank: bool = False
    """All of it, behind a marker, where the part has nothing else."""


class ReasoningParserBase:
    """The base of a reasoning parser.

    Markers are neither reasoning nor answer. White space before the first opening marker is dropped with it.
    What the prompt ends with counts more than a switch, and that more than `initial_state`.
    """

    opening: ClassVar[Sequence[str]] = ("<think>",)
    closing: ClassVar[Sequence[str]] = ("</think>",)
    implicit_end: ClassVar[Sequence[str]] = ()
    """Each ends reasoning as a closing marker does, but is a part of the answer, such as ``<tool_call>``."""
    initial_state: ClassVar[Beginning] = "inside"
    """Inside reasoning; before it, so that a marker must open it; or off: all is answer, word for word."""
    template_flags: ClassVar[Sequence[str]] = ()
    """Variables of the chat template that turn reasoning on or off; the first that is given counts."""
    stray_markers: ClassVar[Literal["dropped", "text", "reasoning"]] = "dropped"
    """Markers out of their place; with "reasoning", an opening one begins more of it, others are dropped."""
    header: ClassVar[str] = ""
    """Dropped where it follows an opening marker at once."""
    answer_tags: ClassVar[Sequence[str]] = ()
    """Two that may stand around the answer, and are dropped."""
    reasoning_space: ClassVar[Space] = Space()
    answer_space: ClassVar[Space] = Space(blank=True)
    visible_tokens: ClassVar[Sequence[str]] = ()
    """All markers: they may be special tokens."""

    def __init_subclass__(cls) -> None:
        cls.visible_tokens = (*cls.opening, *cls.closing, *cls.implicit_end, *cls.answer_tags)

    def __init__(self, context: ParserContext) -> None:
        where = self._beginning(context)
        self._where: Literal["inside", "before", "after"] = "after" if where == "off" else where
        self._constrained = context.constrained
        self._splitter = MarkerSplitter(self._split_at(where))
        self._tagged = False
        self._label = ""  # may still come
        self._marked = False  # this part stands behind a marker
        self._bare = where != "off"  # nothing of this part was emitted yet
        self._held: list[str] = []  # of this part: may be dropped

    def constrain_output(self, content: Constraint) -> Constraint:
        """Return the constraint of a whole output, reasoning included, whose content obeys ``content``.

        In such an output only the first opening and the first closing marker are markers, each only once.
        """
        if self._where == "after":
            return content
        rest = (TextUntil(self.closing[0]), SPACE, content)
        if self._where == "inside":
            return Concat(rest)
        return AnyOf((Concat((SPACE, ConstString(self.opening[0]), *rest)), content))

    def feed(self, text: str) -> list[ParserEvent]:
        """Take the next piece; give what is now certain."""
        return [event for part in self._splitter.feed(text) for event in self._take(part)]

    def finish(self) -> list[ParserEvent]:
        """No more will come: what was held back is no marker."""
        events = [event for part in self._splitter.finish() for event in self._take(part)]
        return events + self._leave(marked=False)

    def _beginning(self, context: ParserContext) -> Literal["inside", "before", "after", "off"]:
        prompt = context.prompt.rstrip()
        if prompt.endswith(tuple(self.opening)):
            return "inside"
        if prompt.endswith(tuple(self.closing)):
            return "after"
        given = (context.template_kwargs.get(switch) for switch in self.template_flags)
        asked = next((value for value in given if value is not None), None)
        if asked is None:
            return self.initial_state
        return "inside" if asked else "off"

    def _split_at(self, where: Literal["inside", "before", "after", "off"]) -> Sequence[str]:
        """Return the markers that the text is searched for."""
        if not self._constrained:
            return () if where == "off" else self.visible_tokens
        return (self.opening[0], self.closing[0]) if where in ("inside", "before") else ()

    def _take(self, part: str | Marker) -> list[ParserEvent]:
        return self._marker(part.text) if isinstance(part, Marker) else self._text(part)

    def _marker(self, marker: str) -> list[ParserEvent]:
        if marker in self.opening and self._opens():
            return self._enter("inside")
        if self._where == "inside" and marker in self.closing:
            return self._enter("after")
        if self._where == "inside" and marker in self.implicit_end:
            return self._enter("after") + self._text(marker)
        if marker in self.answer_tags and self._tags(marker):
            return self._enter("after")
        verbatim = self.stray_markers == "text" or self._constrained
        return [] if marker in (*self.opening, *self.closing) and not verbatim else self._text(marker)

    def _opens(self) -> bool:
        if self._where != "after" and self._bare and not self._marked:
            self._held = []
            return True
        return self._where != "inside" and self.stray_markers == "reasoning" and not self._constrained

    def _tags(self, marker: str) -> bool:
        """Whether this tag is in its place around the answer; if so, remember it."""
        opens = marker == self.answer_tags[0]
        if self._where == "inside" or opens == self._tagged or (opens and not self._bare):
            return False
        self._tagged = opens
        return True

    def _enter(self, where: Literal["inside", "after"]) -> list[ParserEvent]:
        """Begin a part behind a marker."""
        events = self._leave(marked=True)
        self._where = where
        self._label = self.header if where == "inside" else ""
        self._marked = self._bare = True
        return events

    def _leave(self, *, marked: bool) -> list[ParserEvent]:
        """End a part, before a marker or at the end of the text."""
        held = self._release()
        space = self._space
        behind = self._bare and self._marked and (space.start or space.blank)
        before = marked and space.end
        return [] if held.isspace() and (behind or before) else self._emit(held)

    def _text(self, text: str) -> list[ParserEvent]:
        """Text of this part; white space is held back while it may be dropped."""
        if self._label:
            text = self._release() + text
            if self._label != text and self._label.startswith(text):
                self._held = [text]
                return []
            text, self._label = text.removeprefix(self._label), ""
        if not text.strip() and (self._may_be_dropped if self._bare else self._space.end):
            self._held.append(text)
            return []
        text = self._release() + text
        if self._bare:
            text = text.lstrip() if self._marked and self._space.start else text
            self._bare = False
        body = text.rstrip() if self._space.end else text
        self._held = [text[len(body) :]]
        return self._emit(body)

    def _release(self) -> str:
        held, self._held = "".join(self._held), []
        return held

    @property
    def _may_be_dropped(self) -> bool:
        """Whether white space at the beginning of this part may be."""
        return not self._marked or self._space.start or self._space.blank or bool(self.answer_tags)

    @property
    def _space(self) -> Space:
        if self._where == "inside":
            return self.reasoning_space
        # A constrained answer is that and nothing else: the white space that `around` allows is none of it.
        return Space(start=True) if self._constrained else self.answer_space

    def _emit(self, text: str) -> list[ParserEvent]:
        if not text:
            return []
        return [Reasoning(text) if self._where == "inside" else Text(text)]
