"""The tool calls of Llama 3.1 to 3.3: ``{"name": "get_weather", "parameters": {"city": "Tokyo"}}``.

Models write several calls with ``;`` or white space between them, or in a JSON array. ``<|python_tag|>`` may
precede the first one. These separators are dropped. All other text is content, word for word: prose around a
call, an object that is cut off or is not a call, and the separators next to it. So is a tag that no call
follows, since the parser receives it only if the request keeps special tokens.
"""

from __future__ import annotations

import re

from fllm import ParserContext, ParserEvent, Text, ToolArguments, ToolStart
from fllm.parsing import JsonObject, ObjectFinder, ToolFormat, call_from_json, overlap

TAG = "<|python_tag|>"

_OPENING = re.compile(r"(?:[\s\[]|<\|python_tag\|>)*+")
_BETWEEN = re.compile(r"(?:[\s\[\],;]|<\|python_tag\|>)*+")
_ARRAY_END = re.compile(r"\A\s*\]")
_IN_PROSE = re.compile(r"(?:\[|<\|python_tag\|>)(?:[\s\[]|<\|python_tag\|>)*+")


class Llama3JsonParser:
    """Parses calls anywhere in the text and emits each of them when its object is complete.

    At the start, after the tag and after another call, an object with a name and arguments is a call. Within
    prose, the name must also be one of the request's tools, if it has any.
    """

    tool_format = ToolFormat(
        begin='{"name": "', middle='", "parameters": ', end="}", between="; ", trigger='{"name"'
    )

    def __init__(self, context: ParserContext) -> None:
        self._tools = frozenset(tool.name for tool in context.tools)
        self._finder = ObjectFinder()
        self._calls = 0
        self._tail = ""  # text that may become the tag
        self._separators: list[str] = []  # pending; dropped if a call follows
        self._separator: re.Pattern[str] | None = _OPENING  # None within prose
        self._any_name = True  # an object is a call even if its name is not that of a tool
        self._in_array = False

    def feed(self, text: str) -> list[ParserEvent]:
        """Process the next piece of output; return the events that are now certain."""
        return [event for part in self._finder.feed(text) for event in self._part(part)]

    def finish(self) -> list[ParserEvent]:
        """End the output: what was held back is content, unless it only followed a call."""
        events = [event for part in self._finder.finish() for event in self._part(part)]
        events += self._prose(self._release_tail())
        if self._separator is not _BETWEEN:
            events += self._content("")
        return events

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
        if self._in_array:
            text = _ARRAY_END.sub("", text)
        self._separators.clear()
        self._separator = None
        self._any_name = self._in_array = False
        return [Text(text)] if text else []

    def _object(self, json_object: JsonObject) -> list[ParserEvent]:
        call = call_from_json(json_object.members)
        if call is None or not (self._any_name or not self._tools or call.name in self._tools):
            return self._content(json_object.text)
        events: list[ParserEvent] = [
            ToolStart(self._calls, call.name),
            ToolArguments(self._calls, call.arguments),
        ]
        self._calls += 1
        separators = "".join(self._separators)
        self._in_array = "[" in separators or (self._in_array and "]" not in separators)
        self._separators.clear()
        self._separator = _BETWEEN
        self._any_name = True
        return events
