"""Calls with a tag for each argument.

::

    <function=get_weather><parameter=city>Tokyo</parameter></function>
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

from fllm.interfaces import ParserContext
from fllm.parsing.argument_coercion import from_any_text, from_text
from fllm.parsing.literal_reader import json_object, quoted
from fllm.parsing.tag_reader import TagFormat, TaggedBodyScanner
from fllm.parsing.tool_call_parser import Call, ToolCallParser
from fllm.parsing.tool_parameters import Parameters, ToolSchemas


class TaggedToolCallParser(ToolCallParser):
    """A tag for each argument, whose type the tool's schema tells."""

    tags: ClassVar[TagFormat]

    def __init__(self, context: ParserContext) -> None:
        super().__init__(context)
        self._signatures = ToolSchemas(context.tools)

    def new_scanner(self) -> TaggedBodyScanner:
        """From the name to the last tag."""
        return TaggedBodyScanner(self.tags)

    def parse_body(self, body: str) -> Sequence[Call]:
        """The one call."""
        call = read_tagged(body, self.tags, self._signatures)
        return [call] if call else []


def read_tagged(body: str, tags: TagFormat, signatures: ToolSchemas) -> Call | None:
    """The call that a body is; values are of the types that the tool's schema says."""
    scanner = TaggedBodyScanner(tags)
    scanner.feed(body)
    if scanner.state != "complete" or scanner.length != len(body):
        return None
    parameters = signatures.of(scanner.name)
    arguments = {key: _value(key, text, tags, parameters) for key, text in _parted(scanner, tags, parameters)}
    return Call(scanner.name, json_object(arguments))


def _parted(scanner: TaggedBodyScanner, tags: TagFormat, parameters: Parameters) -> Iterable[tuple[str, str]]:
    """The arguments, also those behind a value whose closing tag the model forgot."""
    given = {key for key, _ in scanner.arguments}
    between = r"\s*".join(map(re.escape, tags.after_key))
    beginning = re.compile(rf"\n[ \t]*+{re.escape(tags.before_key)}([^<>\"\n]++){between}")
    for key, value in scanner.arguments:
        start = 0
        for match in beginning.finditer(value):
            if match[1] in parameters.schemas and match[1] not in given:
                yield key, value[start : match.start()]
                key, start = match[1], match.end()
        yield key, value[start:]


def _value(key: str, text: str, tags: TagFormat, parameters: Parameters) -> str:
    text = text.removeprefix(tags.padding).removesuffix(tags.padding) if tags.padding else text
    schema = parameters.schemas.get(key)
    if parameters.kinds(schema):
        return from_text(text, schema, parameters)
    return from_any_text(text) if tags.typed else quoted(text)
