"""The tool calls of Llama 3.1 to 3.3: ``{"name": "get_weather", "parameters": {"city": "Tokyo"}}``.

Models write several calls with ``;`` or white space between them, or in a JSON array. ``<|python_tag|>`` may
precede the first one. These separators are dropped, and so is a brace too many after a call. All other text
is content, word for word: prose around a call, an object that is cut off or is not a call, and the separators
next to it. So is a tag that no call follows, since the parser receives it only if the request keeps special
tokens.
"""

from __future__ import annotations

import re

from fllm import ParserContext, ParserEvent, Text, ToolArguments, ToolStart
from fllm.events import merge_events
from fllm.parsing import (
    CallHead,
    JsonArguments,
    JsonCallReader,
    JsonObject,
    JsonScanner,
    ObjectFinder,
    ToolFormat,
    call_from_json,
    overlap,
)

TAG = "<|python_tag|>"

_OPENING = re.compile(r"(?:[\s\[]|<\|python_tag\|>)*+")
_BETWEEN = re.compile(r"(?:[\s\[\],;}]|<\|python_tag\|>)*+")
_BRACES = re.compile(r"\A\s*+\}+")
_ARRAY_END = re.compile(r"\A\s*\]")
_IN_PROSE = re.compile(r"(?:\[|<\|python_tag\|>)(?:[\s\[]|<\|python_tag\|>)*+")


class Llama3JsonParser:
    """Parses calls anywhere in the text; those of the request's tools are emitted as they arrive.

    At the start, after the tag and after another call, an object with a name and arguments is a call. Within
    prose, the name must also be one of the request's tools, if it has any.
    """

    tool_format = ToolFormat(
        begin='{"name": "', middle='", "parameters": ', end="}", between="; ", trigger='{"name"'
    )

    def __init__(self, context: ParserContext) -> None:
        self._tools = frozenset(tool.name for tool in context.tools)
        self._finder = ObjectFinder(lambda scanner: self._certain_call(scanner) is not None)
        self._calls = 0
        self._arguments: JsonArguments | None = None  # of the call that is being emitted
        self._reader: JsonCallReader | None = None
        self._tail = ""  # text that may become the tag
        self._separators: list[str] = []  # pending; dropped if a call follows
        self._separator: re.Pattern[str] | None = _OPENING  # None within prose
        self._any_name = True  # an object is a call even if its name is not that of a tool
        self._in_array = False
        self._has_ended = False

    def feed(self, text: str) -> list[ParserEvent]:
        """Process the next piece of output; return the events that are now certain."""
        events = [event for part in self._finder.feed(text) for event in self._part(part)]
        if scanner := self._finder.open_object:
            events += self._stream(scanner)
        return merge_events(events)

    def finish(self) -> list[ParserEvent]:
        """End the output: what was held back is content, unless it only followed a call."""
        self._has_ended = True
        scanner = self._finder.open_object
        begun = scanner and self._arguments is None and self._is_begun(scanner)
        if begun:
            return self._drop_call()
        events = [event for part in self._finder.finish() for event in self._part(part)]
        if not self._follows_call:
            events += self._prose(self._release_tail())
        if self._separator is not _BETWEEN:
            events += self._content("")
        return merge_events(events)

    @property
    def _follows_call(self) -> bool:
        """Whether another call may follow one of the request's tools."""
        return self._separator is _BETWEEN and bool(self._tools)

    def _drop_call(self) -> list[ParserEvent]:
        """Drop the beginning of a call, which is not content, and the separators before it."""
        self._finder.finish()
        self._separators.clear()
        self._tail = ""
        return []

    def _is_begun(self, scanner: JsonScanner) -> bool:
        """Return whether an object is the beginning of a call of which no argument is certain."""
        begun = self._known_call(scanner) or self._follows_call
        return bool(begun) and self._certain_call(scanner) is None

    def _stream(self, scanner: JsonScanner) -> list[ParserEvent]:
        """Return what is new of a call whose object is open."""
        events: list[ParserEvent] = []
        if self._arguments is None and (head := self._certain_call(scanner)):
            events = self._prose(self._release_tail()) + self._begin(head.name)
            self._arguments = head.arguments
        if self._arguments:
            events.append(ToolArguments(self._calls - 1, self._arguments.take()))
        return events

    def _certain_call(self, scanner: JsonScanner) -> CallHead | None:
        """Return the beginning of a call that is certain: one of the request's tools, with an argument."""
        head = self._known_call(scanner)
        if head is None or head.arguments is None:
            return None
        return head if head.arguments.has_begun or self._has_ended else None

    def _known_call(self, scanner: JsonScanner) -> CallHead | None:
        """Return the beginning of a call of one of the request's tools, once its name is complete."""
        if self._reader is None or self._reader.scanner is not scanner:
            self._reader = JsonCallReader(scanner)
        head = self._reader.read()
        return head if head and head.name in self._tools else None

    def _part(self, part: str | JsonObject) -> list[ParserEvent]:
        if isinstance(part, JsonObject):
            return self._prose(self._release_tail()) + self._object(part)
        text = self._release_tail() + part
        cut = len(text) - overlap(text, TAG)
        self._tail = text[cut:]
        return self._prose(text[:cut])

    def _release_tail(self) -> str:
        tail, self._tail = self._tail, ""
        return tail

    def _prose(self, text: str) -> list[ParserEvent]:
        """Return text, except for separators, which are dropped if a call follows."""
        if self._separator and self._separator.fullmatch(text):
            self._hold(text)
            return []
        position = 0
        while match := _IN_PROSE.search(text, position):
            position = match.end()
            if position == len(text):
                events = self._content(text[: match.start()])
                self._separator = _OPENING
                self._hold(match[0])
                return events
        return self._content(text)

    def _hold(self, separator: str) -> None:
        self._separators.append(separator)
        self._any_name = self._any_name or TAG in separator

    def _content(self, text: str) -> list[ParserEvent]:
        """Return text after the pending separators; what follows is prose."""
        text = "".join([*self._separators, text])
        if self._separator is _BETWEEN:
            text = _BRACES.sub("", text)
        if self._in_array:
            text = _ARRAY_END.sub("", text)
        self._separators.clear()
        self._separator = None
        self._any_name = self._in_array = False
        return [Text(text)] if text else []

    def _object(self, json_object: JsonObject) -> list[ParserEvent]:
        scanner = json_object.scanner
        events: list[ParserEvent] = []
        if self._arguments is None and (head := self._certain_call(scanner)):
            events = self._begin(head.name)
            self._arguments = head.arguments
        if self._arguments:
            return [*events, ToolArguments(self._calls - 1, self._rest_of_arguments(scanner))]
        call = call_from_json(json_object.members)
        if call is None or not (self._any_name or not self._tools or call.name in self._tools):
            return self._content(json_object.text)
        return [*self._begin(call.name), ToolArguments(self._calls - 1, call.arguments)]

    def _begin(self, name: str) -> list[ParserEvent]:
        separators = "".join(self._separators)
        self._in_array = "[" in separators or (self._in_array and "]" not in separators)
        self._separators.clear()
        self._separator = _BETWEEN
        self._any_name = True
        self._calls += 1
        return [ToolStart(self._calls - 1, name)]

    def _rest_of_arguments(self, scanner: JsonScanner) -> str:
        """Return the arguments that are left of a call whose object is complete, broken or cut off."""
        arguments, self._arguments = self._arguments, None
        assert arguments, "a call has begun"
        if scanner.state == "open":
            return arguments.take_rest()
        return arguments.take() + (arguments.closing() if scanner.state == "broken" else "")
