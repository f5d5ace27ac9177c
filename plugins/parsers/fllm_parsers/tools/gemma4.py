"""The tool calls of Gemma 4, whose strings have a token of their own for a quote.

::

    <|tool_call>call:get_weather{city:<|"|>Tokyo<|"|>,days:3,alert:{wind:true}}<tool_call|>
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from fllm.constraints import AnyOf, Concat, Constraint, ConstString, TextUntil
from fllm.interfaces import ParserContext
from fllm.parsing import Call, ToolCallParser, ToolFormat
from fllm.parsing.argument_coercion import coerced, is_json
from fllm.parsing.argument_constraints import is_free, json_value, named
from fllm.parsing.literal_reader import LiteralReader, Scope, json_object, quoted
from fllm.parsing.python_call_reader import unescape
from fllm.parsing.tool_parameters import Parameters, ToolSchemas, choices

QUOTE = '<|"|>'

_HEAD = re.compile(r"[\w./: -]*+")
_NAME = re.compile(r"(?:(?:call)?:)? *([\w./:-]+) *")
_LONGEST_HEAD = 256


class GemmaCallReader(LiteralReader):
    """Reads ``call:``, which a model may leave out, a name, and arguments in braces; words may be strings."""

    outermost = Scope("}", ":")
    scopes = MappingProxyType({"{": Scope("}", ":"), "[": Scope("]")})
    quotes = (QUOTE, '"')
    verbatim = frozenset((QUOTE,))
    word = re.compile(r"[^,{}\[\]<\"]*+")
    key = re.compile(r"[^,:{}\[\]<\"]*+")

    def outside(self, text: str, position: int) -> int:
        """What is before the brace."""
        head = _HEAD.match(text, position)
        assert head is not None  # it matches the empty text
        if head.end() == len(text) and len(head[0]) <= _LONGEST_HEAD:
            return position
        name = _NAME.fullmatch(head[0])
        if not name or len(head[0]) > _LONGEST_HEAD or text[head.end()] != "{":
            return self.give_up(position)
        self.begin(name[1])
        return head.end() + 1

    def scalar(self, word: str) -> str:
        """JSON, or else a string without quotes."""
        return word if is_json(word) else quoted(word)

    def string(self, written: str, prefix: str) -> str | None:
        """A string of JSON."""
        return None if prefix else unescape(written)


def gemma_value(schema: Any, parameters: Parameters) -> Constraint:
    """Strings between their token, and all else as JSON, which the template writes nearly the same."""
    if parameters.kinds(schema) != {"string"}:
        return json_value(schema, parameters)
    if listed := choices(parameters.resolved(schema)):
        return AnyOf(tuple(ConstString(f"{QUOTE}{choice}{QUOTE}") for choice in listed))
    if is_free(schema, parameters):
        return Concat((ConstString(QUOTE), TextUntil(QUOTE)))
    return json_value(schema, parameters)


class Gemma4Parser(ToolCallParser):
    """One call between each pair of markers."""

    opening = ("<|tool_call>",)
    closing = ("<tool_call|>",)
    inner_markers = (QUOTE,)
    tool_format = ToolFormat(
        begin="<|tool_call>call:",
        middle="{",
        end="}<tool_call|>",
        trigger="<|tool_call>",
        arguments=named(":", ",", gemma_value),
    )

    def __init__(self, context: ParserContext) -> None:
        super().__init__(context)
        self._signatures = ToolSchemas(context.tools)

    def new_scanner(self) -> GemmaCallReader:
        """Up to the closing brace."""
        return GemmaCallReader()

    def parse_body(self, body: str) -> Sequence[Call]:
        """The one call; what has no quotes is of the type that the tool's schema says."""
        scanner = self.new_scanner()
        scanner.feed(body)
        ((name, arguments),) = scanner.calls
        parameters = self._signatures.of(name)
        typed = {
            key: coerced(value, parameters.schemas.get(key), parameters) for key, value in arguments.items()
        }
        return [Call(name, json_object(typed))]
