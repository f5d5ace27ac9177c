"""The reasoning of DeepSeek-R1 and its kin: ``<think>why</think>what``; often the prompt opens it."""

from __future__ import annotations

import re

from fllm import ParserContext, ParserEvent, Reasoning, Text
from fllm.stages import overlap

OPEN = "<think>"
CLOSE = "</think>"

_TAG = re.compile(f"{OPEN}|{CLOSE}")


class DeepSeekR1Parser:
    """Text before the first ``</think>`` is reasoning, text after it the answer; no tag is either.

    Neither is trimmed, so reasoning may be white space; only that before an opening ``<think>`` is dropped
    with it. If the prompt ends with ``</think>``, there is no reasoning: the template has closed it for the
    model.
    """

    visible_tokens = (OPEN, CLOSE)

    def __init__(self, context: ParserContext) -> None:
        self._thinking = not context.prompt.rstrip().endswith(CLOSE)
        self._margin: list[str] | None = [] if self._thinking else None  # white space before anything else
        self._tail = ""  # may become a tag

    def feed(self, text: str) -> list[ParserEvent]:
        """Take the next piece; give what is now certain."""
        text = self._tail + text
        cut = len(text) - max(overlap(text, OPEN), overlap(text, CLOSE))
        self._tail = text[cut:]
        return self._read(text[:cut])

    def finish(self) -> list[ParserEvent]:
        """No more will come: what might have become a tag is text."""
        tail, self._tail = self._tail, ""
        margin, self._margin = "".join(self._margin or ()), None
        return self._read(margin + tail)

    def _read(self, text: str) -> list[ParserEvent]:
        events: list[ParserEvent] = []
        position = 0
        while tag := _TAG.search(text, position):
            events += self._pass(text[position : tag.start()], tag[0])
            self._thinking = self._thinking and tag[0] == OPEN
            position = tag.end()
        return events + self._pass(text[position:])

    def _pass(self, text: str, tag: str = "") -> list[ParserEvent]:
        """Text up to a tag, or up to where more may come."""
        if self._margin is not None:
            self._margin.append(text)
            if not tag and (not text or text.isspace()):
                return []
            blank = tag == OPEN and not text.strip()
            text = "" if blank else "".join(self._margin)
            self._margin = None
        if not text:
            return []
        return [Reasoning(text) if self._thinking else Text(text)]
