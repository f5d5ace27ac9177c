"""The base of parsers whose calls have a tag for each argument.

::

    <function=get_weather><parameter=city>Tokyo</parameter></function>
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

from fllm.interfaces import ParserContext
from fllm.parsing.argument_coercion import from_any_text, from_text
from fllm.parsing.literal_scanner import json_object, quoted
from fllm.parsing.tag_scanner import TagFormat, TaggedBodyScanner
from fllm.parsing.tool_call_parser import Call, ToolCallParser
from fllm.parsing.tool_parameters import Parameters, ToolSchemas


class TaggedToolCallParser(ToolCallParser[TaggedBodyScanner]):
    """The base of a parser of tagged arguments, which get the types that the schema of the tool declares."""

    tags: ClassVar[TagFormat]

    def __init__(self, context: ParserContext) -> None:
        super().__init__(context)
        self._schemas = ToolSchemas(context.tools)

    def new_scanner(self) -> TaggedBodyScanner:
        """Return a scanner from the name to the last tag."""
        return TaggedBodyScanner(self.tags)

    def parse_body(self, scanner: TaggedBodyScanner) -> Sequence[Call]:
        """Return the call, with values of the declared types."""
        return [typed_call(scanner, self._schemas)]


def typed_call(scanner: TaggedBodyScanner, schemas: ToolSchemas) -> Call:
    """Return the call that ``scanner`` has read, with values of the types that the tool declares."""
    parameters = schemas.of(scanner.name)
    arguments = {
        key: _json_value(key, text, scanner.tags, parameters) for key, text in _arguments(scanner, parameters)
    }
    return Call(scanner.name, json_object(arguments))


def _arguments(scanner: TaggedBodyScanner, parameters: Parameters) -> Iterable[tuple[str, str]]:
    """Yield the arguments, including those within a value whose closing tag the model forgot."""
    tags = scanner.tags
    written = {key for key, _ in scanner.arguments}
    between = r"\s*".join(map(re.escape, tags.after_key))
    beginning = re.compile(rf"\n[ \t]*+{re.escape(tags.before_key)}([^<>\"\n]++){between}")
    for key, value in scanner.arguments:
        start = 0
        for match in beginning.finditer(value):
            if match[1] in parameters.schemas and match[1] not in written:
                yield key, value[start : match.start()]
                key, start = match[1], match.end()
        yield key, value[start:]


def _json_value(key: str, text: str, tags: TagFormat, parameters: Parameters) -> str:
    text = text.removeprefix(tags.padding).removesuffix(tags.padding) if tags.padding else text
    schema = parameters.schemas.get(key)
    if parameters.types(schema):
        return from_text(text, schema, parameters)
    return from_any_text(text) if tags.typed else quoted(text)
