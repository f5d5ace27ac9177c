"""The base of parsers whose calls have a tag for each argument.

::

    <function=get_weather><parameter=city>Tokyo</parameter></function>
"""

from __future__ import annotations

from typing import Any, ClassVar

from fllm.interfaces import ParserContext
from fllm.parsing.argument_coercion import from_any_text, from_text
from fllm.parsing.argument_writer import ArgumentWriter, quoted
from fllm.parsing.tag_scanner import TagFormat, TaggedBodyScanner
from fllm.parsing.tool_call_parser import ToolCallParser
from fllm.parsing.tool_parameters import Parameters, ToolSchemas


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
            self.tags,
            accepts=self.accepts,
            is_tool=self.is_tool,
            is_parameter=lambda name, key: key in self._schemas.of(name).schemas,
            sections=tuple(self.section_markers),
        )

    def accepts(self, name: str) -> bool:
        """Return whether a text with this name and an argument is a call. By default, it is."""
        return True

    def accepts_without_arguments(self, name: str) -> bool:
        """Return whether a text with this name and no argument is a call."""
        return self.accepts(name)

    def stream_body(self, scanner: TaggedBodyScanner) -> None:
        """Emit the arguments as they arrive, from the first one on."""
        complete = scanner.state == "complete"
        if not (scanner.certain or (complete and self.accepts_without_arguments(scanner.name))):
            return
        if not self.calls_in_body:
            self.begin_call(scanner.name)
        self.add_arguments(self._new_arguments(scanner) + (self._arguments.end() if complete else ""))

    def cut_body(self, scanner: TaggedBodyScanner) -> None:
        """Emit the beginning of the object if no argument has been emitted."""
        if self.calls_in_body:
            self.add_arguments(self._arguments.begin())

    def break_body(self, scanner: TaggedBodyScanner, rest: str) -> str:
        """End the arguments; return the text after them."""
        self.add_arguments(self._arguments.end())
        return scanner.unread or rest

    def _new_arguments(self, scanner: TaggedBodyScanner) -> str:
        """Return the JSON text of the arguments that is new and certain."""
        writer, parameters, parts = self._arguments, self._schemas.of(scanner.name), list[str]()
        for key, text in scanner.arguments[writer.count :]:
            if writer.in_string:
                parts.append(writer.string(text[self._streamed :]) + writer.end_string())
            else:
                parts.append(
                    writer.value(
                        key, _json_value(text, scanner.tags, parameters.schemas.get(key), parameters)
                    )
                )
        if scanner.key and not writer.in_string:
            schema = parameters.schemas.get(scanner.key)
            if _is_string(schema, scanner.tags, parameters):
                parts.append(writer.begin_string(scanner.key))
                self._streamed = 0
        if scanner.key and writer.in_string:
            new = scanner.take_value()
            self._streamed += len(new)
            parts.append(writer.string(new))
        return "".join(parts)


def _is_string(schema: Any, tags: TagFormat, parameters: Parameters) -> bool:
    """Return whether any value of the schema is the string that was written."""
    types = parameters.types(schema)
    return types == {"string"} if types else not tags.typed


def _json_value(text: str, tags: TagFormat, schema: Any, parameters: Parameters) -> str:
    if parameters.types(schema):
        return from_text(text, schema, parameters)
    return from_any_text(text) if tags.typed else quoted(text)
