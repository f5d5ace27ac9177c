"""The reasoning of gpt-oss, which writes messages on channels: the harmony format.

::

    <|channel|>analysis<|message|>reasoning<|end|><|start|>assistant<|channel|>final<|message|>answer

The prompt ends with ``<|start|>assistant``. Messages of the channel ``analysis`` are reasoning, those of
``final`` are the answer, and those of ``commentary`` are tool calls, or text for the user before a tool call.
A message to a tool names it in its header, before or after the channel: ``<|channel|>commentary
to=functions.f <|constrain|>json<|message|>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from fllm import ParserContext, ParserEvent, Reasoning, ReasoningLimit, Text
from fllm.constraints import AnyOf, Concat, Constraint, ConstString, TextUntil
from fllm.parsing import Marker, MarkerSplitter

START = "<|start|>"
CHANNEL = "<|channel|>"
CONSTRAIN = "<|constrain|>"
MESSAGE = "<|message|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")

_HEADER_MARKERS = (START, CHANNEL, CONSTRAIN)
_ANALYSIS = f"{CHANNEL}analysis{MESSAGE}"
_NEXT = f"{START}assistant"
_RECIPIENT = " to="
_FINAL = f"{CHANNEL}final{MESSAGE}"


class OpenAIGptOssParser:
    """Parses ``analysis`` as reasoning and all other messages as text.

    A message to a tool keeps its header and its closing marker, for the tool-call parser. Text without a
    header is text. A header without a message is dropped.
    """

    visible_tokens: ClassVar[Sequence[str]] = (*_HEADER_MARKERS, MESSAGE, *ENDS)

    def __init__(self, context: ParserContext) -> None:
        self._splitter = MarkerSplitter(self.visible_tokens)
        self._header: list[str] | None = None
        """The header that is being read; ``None`` within a message."""
        self._kind: Literal["reasoning", "text", "call"] = "text"
        self._beginning: list[str] | None = []
        """The beginning of the output, which may be a recipient, since the prompt began the header."""
        self._has_recipient = False
        if context.continued_message is not None:
            self._beginning = None
            for part in (*self._splitter.feed(context.continued_message), *self._splitter.finish()):
                self._process(part)

    def constrain_output(self, content: Constraint) -> Constraint:
        """Return the constraint of a whole output: optional reasoning, then the content.

        The content is the final message or, if it is a call, begins with a header of its own.
        """
        rest_of_reasoning = (TextUntil(ENDS[0]), ConstString(_NEXT))
        answer = AnyOf((Concat((ConstString(_FINAL), content)), content))
        if self._beginning is None:  # the output continues a message
            return Concat((*rest_of_reasoning, answer)) if self._kind == "reasoning" else content
        reasoning = Concat((ConstString(_ANALYSIS), *rest_of_reasoning))
        return Concat((AnyOf((reasoning, ConstString(""))), answer))

    def limit_reasoning(self, max_tokens: int) -> ReasoningLimit:
        """Return the limit of an output whose analysis has at most this number of tokens."""
        return ReasoningLimit(
            max_tokens=max_tokens,
            opening=(_ANALYSIS,),
            closing=ENDS,
            end=ENDS[0] + _NEXT + _FINAL,
            inside=False,
            reopens=True,
        )

    def feed(self, text: str) -> list[ParserEvent]:
        """Process the next piece of output; return the events that are now certain."""
        return [event for part in self._splitter.feed(text) for event in self._process(part)]

    def finish(self) -> list[ParserEvent]:
        """End the output: what was held back is not a marker."""
        events = [event for part in self._splitter.finish() for event in self._process(part)]
        rest, self._beginning = "".join(self._beginning or ()), None
        return [*events, Text(rest)] if rest else events

    def _process(self, part: str | Marker) -> list[ParserEvent]:
        if isinstance(part, Marker):
            return self._marker(part.text)
        if self._header is not None:
            self._header.append(part)
            return []
        if self._beginning is not None:
            self._beginning.append(part)
            if self._has_recipient or self._may_be_recipient("".join(self._beginning)):
                return []
            part, self._beginning = "".join(self._beginning), None
        return [Reasoning(part) if self._kind == "reasoning" else Text(part)]

    def _may_be_recipient(self, beginning: str) -> bool:
        self._has_recipient = beginning.startswith(_RECIPIENT)
        return self._has_recipient or _RECIPIENT.startswith(beginning)

    def _marker(self, marker: str) -> list[ParserEvent]:
        if self._beginning is not None:
            self._header = self._beginning or None
            self._beginning = None
        if marker in _HEADER_MARKERS:
            self._header = [*(self._header or ()), marker]
            return []
        if marker == MESSAGE:
            return self._begin_message("".join(self._header or ()))
        ended, self._kind, self._header = self._kind, "text", None
        return [Text(marker)] if ended == "call" else []

    def _begin_message(self, header: str) -> list[ParserEvent]:
        """Begin a message, whose header is complete."""
        self._header = None
        channel = header.partition(CHANNEL)[2]
        if _RECIPIENT in header:
            self._kind = "call"
            return [Text(header + MESSAGE)]
        self._kind = "reasoning" if channel.split()[:1] == ["analysis"] else "text"
        return []
