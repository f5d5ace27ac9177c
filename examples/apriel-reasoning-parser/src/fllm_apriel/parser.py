"""The reasoning of ServiceNow's Apriel-Nemotron-15b-Thinker, Apriel-1.5 and Apriel-1.6.

Their chat templates begin the output with ``Here are my reasoning steps:``. The model adds::

    First, 2 + 2 ...
    [BEGIN FINAL RESPONSE]
    It is 4.
    [END FINAL RESPONSE]

Apriel-1.6 omits the last line. The line breaks around a marker belong to the marker. If reasoning is turned
off, the template writes the first marker.
"""

from __future__ import annotations

from fllm import ParserContext, ParserEvent, Reasoning, Text
from fllm.constraints import Concat, Constraint, ConstString, TextUntil
from fllm.parsing import overlap

BEGIN = "[BEGIN FINAL RESPONSE]"
END = "[END FINAL RESPONSE]"


class AprielParser:
    """Parses reasoning up to ``BEGIN``, and then content, which includes any text after ``END``."""

    visible_tokens = (BEGIN, END)  # Apriel-1.6 has special tokens for them

    def __init__(self, context: ParserContext) -> None:
        self._answering = context.prompt.rstrip().endswith(BEGIN)
        self._marker = END if self._answering else BEGIN
        self._pending = ""
        self._at_marker = context.prompt.endswith(BEGIN)
        """Whether a marker was read last, so that a line break still belongs to it."""

    def feed(self, text: str) -> list[ParserEvent]:
        """Process the next piece of output; return the events that are now certain."""
        events: list[ParserEvent] = []
        text = self._pending + text
        while self._marker and self._marker in text:
            before, _, text = text.partition(self._marker)
            events += self._emit(before.removesuffix("\n"))
            self._answering, self._at_marker = True, True
            self._marker = END if self._marker == BEGIN else ""
        certain = len(text) - (overlap(text, self._marker) if self._marker else 0)
        if self._marker and text[:certain].endswith("\n"):
            certain -= 1
        self._pending = text[certain:]
        return events + self._emit(text[:certain])

    def finish(self) -> list[ParserEvent]:
        """End the output: what was held back is not a marker."""
        return self._emit(self._pending)

    def constrain_output(self, content: Constraint) -> Constraint:
        """Leave the reasoning free, and constrain what follows it."""
        return content if self._answering else Concat((TextUntil(BEGIN), ConstString("\n"), content))

    def _emit(self, text: str) -> list[ParserEvent]:
        if text and self._at_marker:
            self._at_marker = False
            text = text.removeprefix("\n")
        if not text:
            return []
        return [Text(text) if self._answering else Reasoning(text)]
