"""The tool calls of Functionary v3.1: ``<function=get_weather>{"city": "Tokyo"}</function>``.

Llama 3.1 writes them too where the system prompt describes this format. Calls follow one another, and text
may come before, between and after them. Models forget the closing tag at the end of an answer, so that an
object behind an opening tag is a call already; a tag without one, or with one that breaks off, is text.
"""

from __future__ import annotations

import re

from fllm import ParserContext, ParserEvent, Text, ToolArguments, ToolStart
from fllm.json_objects import JsonObject, ObjectFinder
from fllm.stages import overlap
from fllm.tool_format import ToolFormat

OPEN, CLOSE = "<function=", "</function>"

# OpenAI's names have at most 64 of these characters. Both limits bound what is held back.
_OPENING = re.compile(r"<function=([\w.-]{0,64})(>\s{0,8})?\Z", re.ASCII)


class FunctionaryParser:
    """Text passes at once, save what may become a tag; a call is emitted when its object is complete."""

    format = ToolFormat(begin=OPEN, middle=">", end=CLOSE)

    def __init__(self, context: ParserContext) -> None:  # noqa: ARG002  (whatever is called is a call)
        self._finder = ObjectFinder()
        self._held = ""
        self._calls = 0
        self._unclosed = False
        """A closing tag may follow, which is dropped."""
        self._between = False
        """Nothing but white space since the last call, which is dropped before another and at the end."""

    def feed(self, text: str) -> list[ParserEvent]:
        """Take the next piece; give what is now certain."""
        return [event for part in self._finder.feed(text) for event in self._part(part)]

    def finish(self) -> list[ParserEvent]:
        """No more will come: what was held back is text."""
        events = [event for part in self._finder.finish() for event in self._part(part)]
        return events + self._pass(len(self._held))

    def _part(self, part: str | JsonObject) -> list[ParserEvent]:
        if isinstance(part, JsonObject):
            return self._object(part.text)
        self._held += part
        if self._unclosed and not self._settle():
            return []
        tag = _OPENING.search(self._held)
        return self._pass(tag.start() if tag else len(self._held) - overlap(self._held, OPEN))

    def _object(self, text: str) -> list[ParserEvent]:
        tag = _OPENING.search(self._held)
        if not (tag and tag[1] and tag[2]):
            self._unclosed = False
            self._held += text
            return self._pass(len(self._held))
        events = self._pass(tag.start())
        events += [ToolStart(self._calls, tag[1]), ToolArguments(self._calls, text)]
        self._calls += 1
        self._held = ""
        self._unclosed = self._between = True
        return events

    def _settle(self) -> bool:
        """Drop the closing tag if it is here; False if it may still come."""
        rest = self._held.lstrip()
        if rest.startswith(CLOSE):
            self._held = rest[len(CLOSE) :]
        elif CLOSE.startswith(rest):
            return False
        self._unclosed = False
        return True

    def _pass(self, end: int) -> list[ParserEvent]:
        """Emit so much of what is held, unless it may only separate two calls."""
        text = self._held[:end]
        if not text or (self._between and text.isspace()):
            return []
        self._held = self._held[end:]
        self._between = False
        return [Text(text)]
