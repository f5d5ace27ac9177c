"""The reasoning of Muse Glimmer, which writes messages to recipients.

::

     to=self<|message|>reasoning<|eom|><|start|>assistant to=user<|message|>answer<|eot|>

The prompt ends with ``<|start|>assistant``. A message to anyone else holds a tool call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fllm import ParserEvent, ReasoningLimit
from fllm.constraints import AnyOf, Concat, Constraint, ConstString, TextUntil
from fllm_parsers.reasoning.openai_gptoss import MESSAGE, START, OpenAIGptOssParser

ENDS = ("<|eom|>", "<|eot|>")

_RECIPIENT = "to="


class MuseGlimmerParser(OpenAIGptOssParser):
    """Parses messages to ``self`` as reasoning and all other messages, without their headers, as text."""

    visible_tokens: ClassVar[Sequence[str]] = (START, MESSAGE, *ENDS)

    def constrain_output(self, content: Constraint) -> Constraint:
        """Return the constraint of a whole output: optional reasoning, then the content."""
        reasoning = Concat(
            (
                ConstString(f" {_RECIPIENT}self{MESSAGE}"),
                TextUntil(ENDS[0]),
                ConstString(f"{START}assistant"),
            )
        )
        answer = Concat((ConstString(f" {_RECIPIENT}user{MESSAGE}"), content))
        return Concat((AnyOf((reasoning, ConstString(""))), AnyOf((answer, content))))

    def limit_reasoning(self, max_tokens: int) -> ReasoningLimit:
        """Return the limit of an output whose messages to itself have at most this number of tokens."""
        return ReasoningLimit(
            max_tokens=max_tokens,
            opening=(f"{_RECIPIENT}self{MESSAGE}",),
            closing=ENDS,
            end=f"{ENDS[0]}{START}assistant {_RECIPIENT}user{MESSAGE}",
            inside=False,
            reopens=True,
        )

    def _may_be_recipient(self, beginning: str) -> bool:
        self._has_recipient = beginning.lstrip().startswith(_RECIPIENT)
        return self._has_recipient or _RECIPIENT.startswith(beginning.lstrip())

    def _begin_message(self, header: str) -> list[ParserEvent]:
        """Begin a message, whose header is complete."""
        self._header = None
        recipient = header.partition(_RECIPIENT)[2].strip()
        self._kind = "reasoning" if recipient == "self" else "text"
        return []
