"""Parsers that parse nothing: all of the output is the answer."""

from __future__ import annotations

from typing import ClassVar

from fllm import ParserContext, ParserEvent, Text
from fllm.constraints import Constraint
from fllm.interfaces import EVERY_SPECIAL_TOKEN


class IdentityParser:
    """Passes the output on, word for word."""

    prefix: ClassVar[str] = ""
    """Text that precedes the output."""

    def __init__(self, _: ParserContext) -> None:
        self._prefix = self.prefix

    def constrain_output(self, content: Constraint) -> Constraint:
        """Return the constraint on the output: there is no reasoning."""
        return content

    def feed(self, text: str) -> list[ParserEvent]:
        """Return the text."""
        prefix, self._prefix = self._prefix, ""
        return [Text(prefix + text)] if prefix or text else []

    def finish(self) -> list[ParserEvent]:
        """End the output."""
        return self.feed("")


class RawParser(IdentityParser):
    """Passes the output on with all special tokens, so that one can see what the model writes."""

    visible_tokens = (EVERY_SPECIAL_TOKEN,)


class MiniMaxM2AppendThinkParser(IdentityParser):
    """Passes the output of MiniMax-M2 on with the ``<think>`` that its prompt ended with."""

    prefix = "<think>"
