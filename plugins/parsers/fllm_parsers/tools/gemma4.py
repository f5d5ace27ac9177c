"""The tool calls of Gemma 4 and FunctionGemma, whose strings have a special token as a quote.

::

    <|tool_call>call:get_weather{city:<|"|>Tokyo<|"|>,days:3,alert:{wind:true}}<tool_call|>
    <start_function_call>call:get_weather{city:<escape>Tokyo<escape>}<end_function_call>
"""

from __future__ import annotations

import re
from functools import partial
from types import MappingProxyType
from typing import Any

from fllm.constraints import AnyOf, Concat, Constraint, ConstString, TextUntil
from fllm.interfaces import ParserContext
from fllm.parsing import LiteralToolCallParser, ToolFormat
from fllm.parsing.argument_coercion import as_json, coerced
from fllm.parsing.argument_constraints import is_free, json_value, named_arguments
from fllm.parsing.argument_writer import quoted
from fllm.parsing.body_scanner import MAX_NAME_LENGTH, match_end
from fllm.parsing.literal_scanner import LiteralArgument, LiteralCall, LiteralScanner, Scope
from fllm.parsing.python_call_scanner import unescape
from fllm.parsing.tool_parameters import Parameters, ToolSchemas, choices

_QUOTE = '<|"|>'
_ESCAPE = "<escape>"

_HEADER = re.compile(r"[\w./: -]*+")
_NAME = re.compile(r"(?:(?:call)?:)? *([\w./:-]+) *")


class GemmaCallScanner(LiteralScanner):
    """A `BodyScanner` of a name and arguments in braces; ``call:`` before the name may be missing.

    Words without quotes may be strings.
    """

    outermost = Scope("}", ":")
    scopes = MappingProxyType({"{": Scope("}", ":"), "[": Scope("]")})
    quotes = (_QUOTE, '"')
    verbatim = frozenset((_QUOTE,))
    word = re.compile(r"[^,{}\[\]<\"]*+")
    key = re.compile(r"[^,:{}\[\]<\"]*+")

    def outside(self, text: str, position: int) -> int:
        """Read the header and the brace after it."""
        end = match_end(_HEADER, text, position)
        length = end - position
        if end == len(text) and length <= MAX_NAME_LENGTH:
            return position
        name = _NAME.fullmatch(text[position:end])
        if not name or length > MAX_NAME_LENGTH or text[end] != "{":
            return self.reject(position)
        self.begin(name[1])
        return end + 1

    def scalar(self, word: str) -> str:
        """Return the word if it is JSON, or else the JSON of a string without quotes."""
        return quoted(word) if (value := as_json(word)) is None else value

    def string(self, written: str, prefix: str) -> str | None:
        """Return the string with the escapes of JSON replaced; a word before the quote is not allowed."""
        return None if prefix else unescape(written)


class FunctionGemmaCallScanner(GemmaCallScanner):
    """A `BodyScanner` of the same with another quote."""

    quotes = (_ESCAPE, '"')
    verbatim = frozenset((_ESCAPE,))


def _value(quote: str, schema: Any, parameters: Parameters) -> Constraint:
    """Return the constraint on a value: strings between quote tokens, all else as JSON.

    The template writes all else nearly as JSON.
    """
    if parameters.types(schema) != {"string"}:
        return json_value(schema, parameters)
    if listed := choices(parameters.resolved(schema)):
        return AnyOf(tuple(ConstString(f"{quote}{choice}{quote}") for choice in listed))
    if is_free(schema, parameters):
        return Concat((ConstString(quote), TextUntil(quote)))
    return json_value(schema, parameters)


class Gemma4Parser(LiteralToolCallParser[GemmaCallScanner]):
    """Parses one call between each pair of markers."""

    opening = ("<|tool_call>",)
    closing = ("<tool_call|>",)
    inner_markers = (_QUOTE,)
    tool_format = ToolFormat(
        begin="<|tool_call>call:",
        middle="{",
        end="}<tool_call|>",
        trigger="<|tool_call>",
        arguments=named_arguments(":", ",", partial(_value, _QUOTE)),
    )

    def __init__(self, context: ParserContext) -> None:
        super().__init__(context)
        self._schemas = ToolSchemas(context.tools)

    def new_scanner(self) -> GemmaCallScanner:
        """Return a scanner up to the closing brace."""
        return GemmaCallScanner()

    def value_of(self, call: LiteralCall, argument: LiteralArgument) -> str:
        """Return the JSON of a value; one without quotes gets the type that the tool declares."""
        parameters = self._schemas.of(call.name)
        return coerced(argument.value, parameters.schemas.get(argument.key), parameters)

    def streams_string(self, call: LiteralCall, key: str) -> bool:
        """Return whether the tool declares a string, or nothing."""
        parameters = self._schemas.of(call.name)
        types = parameters.types(parameters.schemas.get(key))
        return not types or "string" in types


class FunctionGemmaParser(Gemma4Parser):
    """Parses the calls of FunctionGemma, with other markers and another quote."""

    opening = ("<start_function_call>",)
    closing = ("<end_function_call>",)
    inner_markers = (_ESCAPE,)
    tool_format = ToolFormat(
        begin="<start_function_call>call:",
        middle="{",
        end="}<end_function_call>",
        trigger="<start_function_call>",
        arguments=named_arguments(":", ",", partial(_value, _ESCAPE)),
    )

    def new_scanner(self) -> FunctionGemmaCallScanner:
        """Return a scanner up to the closing brace."""
        return FunctionGemmaCallScanner()

    def begins_next_call(self, scanner: GemmaCallScanner, marker: str) -> bool:  # noqa: ARG002
        """Return whether the marker is a special token, which no value contains: both markers are."""
        return True
