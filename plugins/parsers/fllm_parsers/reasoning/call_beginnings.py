"""What the calls of all families begin with, after the marker that precedes them."""

from __future__ import annotations

from fllm.parsing import WORD, TextPattern

FUNCTION: TextPattern = (("<function=",), WORD, (">",))
"""A call of Qwen3-Coder and the models that use its tags."""

TOOL_CALL: tuple[TextPattern, ...] = (
    (("{",), ('"name"',), (":",), ('"',), WORD, ('"',)),
    (("{",), ('"arguments"', '"parameters"'), (":",), ("{",)),
    FUNCTION,
    (WORD, ("<arg_key>", "</tool_call>")),
)
"""What follows ``<tool_call>``: JSON, the tags of Qwen3-Coder, or a name and the tags of GLM."""
