"""The base of parsers of calls whose arguments are literals, such as Python's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from fllm.interfaces import ParserContext
from fllm.parsing.argument_writer import ArgumentWriter
from fllm.parsing.literal_scanner import LiteralArgument, LiteralCall, LiteralScanner
from fllm.parsing.tool_call_parser import Call, ToolCallParser

_Scanner = TypeVar("_Scanner", bound=LiteralScanner)


class LiteralToolCallParser(ToolCallParser[_Scanner]):
    """The base of a parser whose scanner is a `LiteralScanner`.

    A string that is the value of an argument is emitted as it arrives, any other value when it is complete.
    """

    def __init__(self, context: ParserContext) -> None:
        super().__init__(context)
        self._arguments = ArgumentWriter()

    def is_certain(self, scanner: _Scanner) -> bool:
        """Return whether the body must be calls, once the first argument has begun. By default, it must."""
        return bool(scanner.calls)

    def value_of(self, call: LiteralCall, argument: LiteralArgument) -> str:
        """Return the JSON of a value. By default, it is what the scanner read."""
        return argument.value

    def streams_string(self, call: LiteralCall, key: str) -> bool:
        """Return whether `value_of` leaves strings of this argument as they are."""
        return True

    def stream_body(self, scanner: _Scanner) -> None:
        """Emit the arguments as they arrive, from the first one on."""
        if not self.calls_in_body and not (
            scanner.calls[:1] and scanner.calls[0].certain and self.is_certain(scanner)
        ):
            return
        for number, call in enumerate(scanner.calls):
            if number < self.calls_in_body - 1 or not call.certain:
                continue
            if number == self.calls_in_body:
                self.begin_call(call.name)
                self._arguments = ArgumentWriter()
            if not self._arguments.complete:
                self.add_arguments(self._new_arguments(scanner, call))

    def cut_body(self, scanner: _Scanner) -> None:
        """Begin the call if its name is complete; emit the beginning of the object if nothing has been."""
        if not self.calls_in_body and scanner.calls and self.is_certain(scanner):
            self.begin_call(scanner.calls[0].name)
            self._arguments = ArgumentWriter()
        if self.calls_in_body and not self._arguments.complete:
            self.add_arguments(self._arguments.begin())

    def begins_next_call(self, scanner: _Scanner, marker: str) -> bool:
        """Return whether the marker is a special token, which no value contains."""
        return marker.startswith("<|")

    def break_body(self, scanner: _Scanner, rest: str) -> str:
        """End the arguments of the last call; return the text after them."""
        if not self._arguments.complete:
            self.add_arguments(self._arguments.end())
        return scanner.unread or rest

    def parse_body(self, scanner: _Scanner) -> Sequence[Call]:
        """Return all calls; none if a subclass finds that the body is text."""
        return [
            Call(
                call.name,
                ArgumentWriter.whole([(each.key, self.value_of(call, each)) for each in call.arguments]),
            )
            for call in scanner.calls
        ]

    def _new_arguments(self, scanner: _Scanner, call: LiteralCall) -> str:
        """Return the JSON text of the arguments that is new and certain."""
        writer, parts = self._arguments, list[str]()
        for argument in call.arguments[writer.count :]:
            if writer.in_string:
                parts.append(writer.string(argument.rest) + writer.end_string())
            else:
                parts.append(writer.value(argument.key, self.value_of(call, argument)))
        key = None if call.complete else scanner.open_string
        if key is not None and not writer.in_string and self.streams_string(call, key):
            parts.append(writer.begin_string(key))
        if key is not None and writer.in_string:
            parts.append(writer.string(scanner.take_string()))
        if call.complete:
            parts.append(writer.end())
        return "".join(parts)
