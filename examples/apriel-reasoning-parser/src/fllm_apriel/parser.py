"""The reasoning of ServiceNow's Apriel-Nemotron-15b-Thinker, Apriel-1.5 and Apriel-1.6.

Their templates begin the answer with ``Here are my reasoning steps:``. What the model adds is::

    First, 2 + 2 ...
    [BEGIN FINAL RESPONSE]
    It is 4.
    [END FINAL RESPONSE]

Apriel-1.6 leaves out the last line. The line breaks around a marker are its own. Where nobody wants
reasoning, the template writes the first marker itself.
"""

from __future__ import annotations

from fllm import ParserContext, ParserEvent, Reasoning, Text
from fllm.constraints import Concat, Constraint, ConstString, TextUntil
from fllm.parsing import overlap

BEGIN = "[BEGIN FINAL RESPONSE]"
END = "[END FINAL RESPONSE]"


class AprielParser:
    """Reasoning, then after ``BEGIN`` the answer; what a model says after ``END`` is part of it."""

    visible_tokens = (BEGIN, END)  # Apriel-1.6 has special tokens for them

    def __init__(self, context: ParserContext) -> None:
        self._answering = context.prompt.rstrip().endswith(BEGIN)
        self._marker = END if self._answering else BEGIN
        self._held = ""
        self._at_marker = context.prompt.endswith(BEGIN)
        """A marker was the last thing read, so a line break still belongs to it."""

    def feed(self, text: str) -> list[ParserEvent]:
        """Take the next piece; give what is now certain."""
        events: list[ParserEvent] = []
        text = self._held + text
        while self._marker and self._marker in text:
            before, _, text = text.partition(self._marker)
            events += self._pass(before.removesuffix("\n"))
            self._answering, self._at_marker = True, True
            self._marker = END if self._marker == BEGIN else ""
        certain = len(text) - (overlap(text, self._marker) if self._marker else 0)
        if self._marker and text[:certain].endswith("\n"):
            certain -= 1
        self._held = text[certain:]
        return events + self._pass(text[:certain])

    def finish(self) -> list[ParserEvent]:
        """No more will come: what was held back is no marker."""
        return self._pass(self._held)

    def constrain_output(self, content: Constraint) -> Constraint:
        """Leave the reasoning free, and constrain what follows it."""
        return content if self._answering else Concat((TextUntil(BEGIN), ConstString("\n"), content))

    def _pass(self, text: str) -> list[ParserEvent]:
        if text and self._at_marker:
            self._at_marker = False
            text = text.removeprefix("\n")
        if not text:
            return []
        return [Text(text) if self._answering else Reasoning(text)]
