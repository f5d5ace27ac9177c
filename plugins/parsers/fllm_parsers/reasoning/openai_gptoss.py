"""The reasoning of gpt-oss, which writes messages on channels: the harmony format.

::

    <|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>what

The prompt ends with ``<|start|>assistant``. Beside ``analysis``, the reasoning, and ``final``, the answer,
there is ``commentary``: words to the user before a call, and the calls. A message to a tool names it in its
header, before or behind the channel: ``<|channel|>commentary to=functions.f <|constrain|>json<|message|>``.
"""

from __future__ import annotations

from typing import Literal

from fllm import ParserContext, ParserEvent, Reasoning, Text
from fllm.constraints import AnyOf, Concat, Constraint, ConstString, TextUntil
from fllm.parsing import Marker, MarkerSplitter

START = "<|start|>"
CHANNEL = "<|channel|>"
CONSTRAIN = "<|constrain|>"
MESSAGE = "<|message|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")

_HEADED = (START, CHANNEL, CONSTRAIN)
_ANALYSIS = f"{CHANNEL}analysis{MESSAGE}"
_NEXT = f"{START}assistant"
_RECIPIENT = " to="
_FINAL = f"{CHANNEL}final{MESSAGE}"


class OpenAIGptOssParser:
    """``analysis`` is reasoning, other messages are text, and a message to a tool is text word for word.

    The latter is for the tool-call parser, with its header and the marker that ends it. What has no header is
    text; a header without a message is nothing.
    """

    visible_tokens = (*_HEADED, MESSAGE, *ENDS)

    def __init__(self, _: ParserContext) -> None:
        self._splitter = MarkerSplitter(self.visible_tokens)
        self._header: list[str] | None = None  # so far; none within a message
        self._kind: Literal["reasoning", "text", "call"] = "text"
        # The prompt began the header, so the text may go on with a recipient.
        self._first: list[str] | None = []
        self._addressed = False

    def constrain_output(self, content: Constraint) -> Constraint:
        """Return the constraint of a whole output: optional reasoning, then the content.

        The content is the final message or, if it is a call, begins with a header of its own.
        """
        reasoning = Concat((ConstString(_ANALYSIS), TextUntil(ENDS[0]), ConstString(_NEXT)))
        return Concat(
            (AnyOf((reasoning, ConstString(""))), AnyOf((Concat((ConstString(_FINAL), content)), content)))
        )

    def feed(self, text: str) -> list[ParserEvent]:
        """Take the next piece; give what is now certain."""
        return [event for part in self._splitter.feed(text) for event in self._take(part)]

    def finish(self) -> list[ParserEvent]:
        """No more will come: what was held back is no marker."""
        events = [event for part in self._splitter.finish() for event in self._take(part)]
        rest, self._first = "".join(self._first or ()), None
        return [*events, Text(rest)] if rest else events

    def _take(self, part: str | Marker) -> list[ParserEvent]:
        if isinstance(part, Marker):
            return self._marker(part.text)
        if self._header is not None:
            self._header.append(part)
            return []
        if self._first is not None:
            self._first.append(part)
            if self._addressed or self._may_address("".join(self._first)):
                return []
            part, self._first = "".join(self._first), None
        return [Reasoning(part) if self._kind == "reasoning" else Text(part)]

    def _may_address(self, beginning: str) -> bool:
        self._addressed = beginning.startswith(_RECIPIENT)
        return self._addressed or _RECIPIENT.startswith(beginning)

    def _marker(self, marker: str) -> list[ParserEvent]:
        if self._first is not None:
            self._header = self._first or None
            self._first = None
        if marker in _HEADED:
            self._header = [*(self._header or ()), marker]
            return []
        if marker == MESSAGE:
            return self._begin("".join(self._header or ()))
        ended, self._kind, self._header = self._kind, "text", None
        return [Text(marker)] if ended == "call" else []

    def _begin(self, header: str) -> list[ParserEvent]:
        """A message, now that its header is complete."""
        self._header = None
        channel = header.partition(CHANNEL)[2]
        if _RECIPIENT in header:
            self._kind = "call"
            return [Text(header + MESSAGE)]
        self._kind = "reasoning" if channel.split()[:1] == ["analysis"] else "text"
        return []
