"""The base of parsers whose calls have a tag for each argument.

::

    <function=get_weather><parameter=city>Tokyo</parameter></function>
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from fllm.interfaces import ParserContext
from fllm.parsing.argument_coercion import as_json, coerced, from_any_text, from_text
from fllm.parsing.argument_writer import ArgumentWriter, quoted
from fllm.parsing.tag_scanner import TagFormat, TaggedBodyScanner
from fllm.parsing.tool_call_parser import Call, ToolCallParser
from fllm.parsing.tool_parameters import Parameters, ToolSchemas, json_type


class TaggedToolCallParser(ToolCallParser[TaggedBodyScanner]):
    """The base of a parser of tagged arguments, which get the types that the schema of the tool declares.

    A value that can only be a string is emitted as it arrives, any other value when it is complete. A call
    that is cut off has its arguments up to there.
    """

    tags: ClassVar[TagFormat]

    def __init__(self, context: ParserContext) -> None:
        super().__init__(context)
        self._schemas = ToolSchemas(context.tools)
        self._arguments = ArgumentWriter()
        self._streamed = 0

    def new_scanner(self) -> TaggedBodyScanner:
        """Return a scanner from the name to the last tag."""
        self._arguments = ArgumentWriter()
        return TaggedBodyScanner(
            self.tags_after(self.marker),
            accepts=self.accepts,
            is_tool=self.is_tool,
            is_parameter=lambda name, key: key in self._schemas.of(name).schemas,
            sections=(*self.section_markers, *(self.closing if self.tags.special else ())),
            closing=tuple(self.closing),
        )

    def tags_after(self, marker: str) -> TagFormat:
        """Return the tags of a call that begins with this opening marker. By default, all are `tags`."""
        return self.tags

    def accepts(self, name: str) -> bool:
        """Return whether a text with this name and an argument is a call. By default, it is."""
        return True

    def accepts_without_arguments(self, name: str) -> bool:
        """Return whether a text with this name and no argument is a call."""
        return self.accepts(name)

    def value_of(self, text: str, schema: Any, parameters: Parameters, *, marked: bool) -> str:
        """Return the JSON of a value; ``marked``: its tag says that it is a string."""
        types = parameters.types(schema)
        if marked and (not types or "string" in types):
            return quoted(text)
        if self.tags.type_attributes and not marked and (value := as_json(text.strip())) is not None:
            coerced_value = coerced(value, schema, parameters)
            if not types or types & _json_types(coerced_value):
                return coerced_value
        if types:
            return from_text(text, schema, parameters)
        return from_any_text(text) if self.tags.typed or self.tags.type_attributes else quoted(text)

    def begins_next_call(self, scanner: TaggedBodyScanner, marker: str) -> bool:
        """Return whether the tags are such that no value contains the marker."""
        return self.tags.special

    def stream_body(self, scanner: TaggedBodyScanner) -> None:
        """Emit the arguments as they arrive, from the first one on."""
        complete = scanner.state == "complete"
        if not (scanner.certain or (complete and self.accepts_without_arguments(scanner.name))):
            return
        if not self.calls_in_body:
            self.begin_call(scanner.name)
        self.add_arguments(self._new_arguments(scanner) + (self._arguments.end() if complete else ""))

    def cut_body(self, scanner: TaggedBodyScanner) -> None:
        """Emit what the end of the output makes certain, or else the beginning of the object."""
        scanner.end()
        self.stream_body(scanner)
        if self.calls_in_body and not self._arguments.complete:
            self.add_arguments(self._arguments.begin())

    def call_without_arguments(self, scanner: TaggedBodyScanner) -> Call | None:
        """Return the call if its name is complete, and the closing tag is missing."""
        called = scanner.name and self.is_tool(scanner.name) and self.accepts_without_arguments(scanner.name)
        return Call(scanner.name, "{}") if called else None

    def break_body(self, scanner: TaggedBodyScanner, rest: str) -> str:
        """End the arguments; return the text after them."""
        self.add_arguments(self._arguments.end())
        return scanner.unread or rest

    def _new_arguments(self, scanner: TaggedBodyScanner) -> str:
        """Return the JSON text of the arguments that is new and certain."""
        writer, parameters, parts = self._arguments, self._schemas.of(scanner.name), list[str]()
        for number in range(writer.count, len(scanner.arguments)):
            key, text = scanner.arguments[number]
            if writer.in_string:
                parts.append(writer.string(text[self._streamed :]) + writer.end_string())
            else:
                schema, marked = parameters.schemas.get(key), scanner.marked_strings[number]
                parts.append(writer.value(key, self.value_of(text, schema, parameters, marked=marked)))
        if scanner.key and not writer.in_string:
            schema = parameters.schemas.get(scanner.key)
            if self._is_string(schema, parameters, marked=scanner.marked_string):
                parts.append(writer.begin_string(scanner.key))
                self._streamed = 0
        if scanner.key and writer.in_string:
            new = scanner.take_value()
            self._streamed += len(new)
            parts.append(writer.string(new))
        return "".join(parts)

    def _is_string(self, schema: Any, parameters: Parameters, *, marked: bool) -> bool:
        """Return whether any value of the schema is the string that was written."""
        types = parameters.types(schema)
        if self.tags.type_attributes:
            return marked and (not types or "string" in types)
        return types == {"string"} if types else not self.tags.typed


def _json_types(value: str) -> set[str]:
    type_ = json_type(json.loads(value))
    return {type_, "number"} if type_ == "integer" else {type_}
