"""The tool calls of Llama 3.1 to 3.3: ``{"name": "get_weather", "parameters": {"city": "Tokyo"}}``.

Models write several calls with ``;`` or white space between them, or in a JSON array; before the first may
come ``<|python_tag|>``. This glue is dropped. All other text is content, word for word: prose around a call,
an object that is no call or is cut off, and what separates it from a call; also a tag that no call follows,
since it is seen only where a request asks for special tokens.
"""

from __future__ import annotations

import re

from fllm import ParserContext, ParserEvent, Text, ToolArguments, ToolStart
from fllm.parsing import JsonObject, ObjectFinder, ToolFormat, call_from_json, overlap

TAG = "<|python_tag|>"

_OPENING = re.compile(r"(?:[\s\[]|<\|python_tag\|>)*+")
_BETWEEN = re.compile(r"(?:[\s\[\],;]|<\|python_tag\|>)*+")
_CLOSING = re.compile(r"\A\s*\]")
_IN_PROSE = re.compile(r"(?:\[|<\|python_tag\|>)(?:[\s\[]|<\|python_tag\|>)*+")


class Llama3JsonParser:
    """Finds calls wherever they are; each is emitted when its object is complete.

    At the start, after the tag and after another call an object with a name and arguments is a call. Within
    prose, the name must also be one of the request's tools, where it has any.
    """

    tool_format = ToolFormat(
        begin='{"name": "', middle='", "parameters": ', end="}", between="; ", trigger='{"name"'
    )

    def __init__(self, context: ParserContext) -> None:
        self._tools = frozenset(tool.name for tool in context.tools)
        self._finder = ObjectFinder()
        self._calls = 0
        self._tail = ""  # may become the tag
        self._glue: list[str] = []  # dropped if a call follows
        self._allowed: re.Pattern[str] | None = _OPENING  # as glue; none within prose
        self._expecting = True  # a call, whatever its name
        self._in_array = False

    def feed(self, text: str) -> list[ParserEvent]:
        """Take the next piece; give what is now certain."""
        return [event for part in self._finder.feed(text) for event in self._part(part)]

    def finish(self) -> list[ParserEvent]:
        """No more will come: what was held back is content, unless it only followed a call."""
        events = [event for part in self._finder.finish() for event in self._part(part)]
        events += self._prose(self._release_tail())
        if self._allowed is not _BETWEEN:
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
        """Pass text on, but hold back what is dropped if a call follows."""
        if self._allowed and self._allowed.fullmatch(text):
            self._hold(text)
            return []
        position = 0
        while glue := _IN_PROSE.search(text, position):
            position = glue.end()
            if position == len(text):
                events = self._content(text[: glue.start()])
                self._allowed = _OPENING
                self._hold(glue[0])
                return events
        return self._content(text)

    def _hold(self, glue: str) -> None:
        self._glue.append(glue)
        self._expecting = self._expecting or TAG in glue

    def _content(self, text: str) -> list[ParserEvent]:
        """Emit text, and what was held back before it; from here on it is prose."""
        text = "".join([*self._glue, text])
        if self._in_array:
            text = _CLOSING.sub("", text)
        self._glue.clear()
        self._allowed = None
        self._expecting = self._in_array = False
        return [Text(text)] if text else []

    def _object(self, found: JsonObject) -> list[ParserEvent]:
        call = call_from_json(found)
        if call is None or not (self._expecting or not self._tools or call.name in self._tools):
            return self._content(found.text)
        events: list[ParserEvent] = [
            ToolStart(self._calls, call.name),
            ToolArguments(self._calls, call.arguments),
        ]
        self._calls += 1
        glue = "".join(self._glue)
        self._in_array = "[" in glue or (self._in_array and "]" not in glue)
        self._glue.clear()
        self._allowed = _BETWEEN
        self._expecting = True
        return events
