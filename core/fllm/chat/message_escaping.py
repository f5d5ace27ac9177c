"""Escape control tokens in messages before a template renders them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct

from fllm.control_tokens import ControlTokenEscaper
from fllm.tokenizer import Tokenizer

OWN_ROLES = ("system", "developer", "assistant")
"""Roles whose text comes from the application or the model. That of all others comes from outside."""
_CONTROL = re.compile("<[|｜].*[|｜]>", re.DOTALL)
"""What only control tokens look like. Some tokenizers do not flag theirs as special."""
_MARKER = re.compile(r"[<\[{(◁].+[>\]})▷]", re.DOTALL)
"""What markers look like, unlike words or white space that are tokens of their own."""


class ControlTokens(Struct, frozen=True):
    """The tokens of a model that are not text."""

    special: frozenset[str] = frozenset()
    """Tokens that are special by their flag or by their form, such as ``<|im_end|>``."""
    markers: frozenset[str] = frozenset()
    """Other added tokens that look like markers, such as ``<tool_call>``. A template gives them a meaning."""


def control_tokens(tokenizer: Tokenizer) -> ControlTokens:
    """Return the control tokens of a tokenizer."""
    special, others = tokenizer.added_tokens
    control = {*special, *filter(_CONTROL.fullmatch, others)}
    return ControlTokens(frozenset(control), frozenset(filter(_MARKER.fullmatch, others)) - control)


class MessageEscaper:
    """Escapes the text of a conversation by role.

    In all messages, special tokens are text. In messages of users, of tools and of other roles from outside,
    the markers that the template writes are text too. What the template looks for in an answer, such as
    ``</think>``, keeps its meaning in the messages of the assistant.
    """

    def __init__(
        self, tokens: ControlTokens, source: str, searched: Collection[str], cut: Collection[str]
    ) -> None:
        self._default = ControlTokenEscaper(tokens.special, cut)
        markers = {marker for marker in tokens.markers if marker in source}
        self._foreign = ControlTokenEscaper(tokens.special | markers, cut) if markers else self._default
        found = tokens.special.intersection(searched)
        self._assistant = ControlTokenEscaper(tokens.special - found, cut) if found else self._default

    def escape_messages(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the messages with all strings escaped."""
        return [self._of_role(message["role"]).escape_values(message) for message in messages]

    def escape_foreign(self, value: Any) -> Any:
        """Return tools or documents, which come from outside, with all strings escaped."""
        return self._foreign.escape_values(value)

    def escape_variable(self, value: Any) -> Any:
        """Return the value of a template's variable with all strings escaped."""
        return self._default.escape_values(value)

    def _of_role(self, role: str) -> ControlTokenEscaper:
        if role not in OWN_ROLES:
            return self._foreign
        return self._assistant if role == "assistant" else self._default
