"""Tool calls whose arguments are JSON objects, with or without a header that holds the name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from fllm.parsing.body_scanner import MAX_NAME_LENGTH, ScanState
from fllm.parsing.json_objects import read_object
from fllm.parsing.json_scanner import JsonScanner
from fllm.parsing.tool_call_parser import Call, ToolCallParser
from fllm.structured_output.tool_format import ToolFormat

_ARGUMENT_KEYS = ("arguments", "parameters")
"""The keys under which models write the arguments; the first one that is present counts."""


def json_list(
    before: str, after: str, *, between: str = ", ", arguments: str = "arguments", trigger: str = ""
) -> ToolFormat:
    """Return the format of calls that are written as JSON objects in a row."""
    return ToolFormat(
        before=before,
        begin='{"name": "',
        middle=f'", "{arguments}": ',
        end="}",
        between=between,
        after=after,
        trigger=trigger,
    )


class JsonToolCallParser(ToolCallParser[JsonScanner]):
    """The base of a parser whose calls are JSON objects with a name and arguments."""

    def new_scanner(self) -> JsonScanner:
        """Return a scanner of the object."""
        return JsonScanner()

    def parse_body(self, scanner: JsonScanner) -> Sequence[Call]:
        """Return the call, if the object has a name and its arguments are an object."""
        call = call_from_json(scanner.members)
        return [call] if call and call.arguments.startswith("{") else []


def call_from_json(members: Mapping[str, str]) -> Call | None:
    """Return the call that an object with these members describes, with the arguments as they were written.

    ``members`` are the JSON texts of the values, by key, such as `JsonScanner.members`. Return ``None`` if
    there is no usable name, or no arguments.
    """
    name = members.get("name", "")
    arguments = next((members[key] for key in _ARGUMENT_KEYS if key in members), None)
    if arguments is None or not name.startswith('"'):
        return None
    return make_call(json.loads(name), arguments)


def make_call(name: str, arguments: str, call_id: str | None = None) -> Call | None:
    """Return a call of the function ``name``, or ``None`` if no client could receive such a name.

    ``arguments`` is JSON text. It becomes an object where it is ``null`` or an object that was encoded twice.
    """
    # Printable text has no half of a surrogate pair, which cannot be encoded as UTF-8.
    return Call(name, _unwrapped(arguments), call_id) if name and name.isprintable() else None


def _unwrapped(arguments: str) -> str:
    """Return the arguments as an object if they are ``null`` or an object that was encoded twice.

    Other values (a number, a list, a sentence) are returned unchanged, because a client's tool may accept
    them.
    """
    if arguments == "null":
        return "{}"
    if arguments.startswith('"'):
        inner = json.loads(arguments).strip()
        return inner if read_object(inner) else arguments
    return arguments


class JsonWithHeaderScanner:
    """A `BodyScanner` of a JSON object that follows a header, such as the name of the function."""

    def __init__(self, header_characters: re.Pattern[str]) -> None:
        """Set the pattern of a run of header characters, such as ``[\\w.]*+``, which excludes braces."""
        self.header = ""
        """The text before the object; final once `object` has read a character."""
        self.object = JsonScanner()
        """The scanner of the object."""
        self._header_characters = header_characters
        self._broken = False

    @property
    def state(self) -> ScanState:
        """The state of the object; also "broken" if the header is too long or has other characters."""
        return "broken" if self._broken else self.object.state

    @property
    def length(self) -> int:
        """Number of characters of header and object."""
        return len(self.header) + self.object.length

    def feed(self, text: str, start: int = 0) -> None:
        """Read on from index ``start`` of ``text``."""
        if not self.object.length:
            start = self._read_header(text, start)
        if start < len(text) and not self._broken:
            self.object.feed(text, start)

    def _read_header(self, text: str, start: int) -> int:
        match = self._header_characters.match(text, start)
        assert match is not None, "the pattern of header characters must match the empty text"
        self.header += match[0][: MAX_NAME_LENGTH + 1]
        end = match.end()
        self._broken = len(self.header) > MAX_NAME_LENGTH or text[end : end + 1] not in ("", "{")
        return end


class HeaderToolCallParser(ToolCallParser[JsonWithHeaderScanner]):
    """The base of a parser whose calls have a header with the name before a JSON object of arguments."""

    header_pattern: ClassVar[re.Pattern[str]]
    """Matches the whole header, with a group ``name`` and, optionally, a group ``id``."""
    header_characters: ClassVar[re.Pattern[str]] = re.compile(r"[^{]*+")
    """Matches a run of the characters that a header may have; a brace is never one of them."""

    def new_scanner(self) -> JsonWithHeaderScanner:
        """Return a scanner of the header and the object."""
        return JsonWithHeaderScanner(self.header_characters)

    def parse_body(self, scanner: JsonWithHeaderScanner) -> Sequence[Call]:
        """Return the call, if the header matches `header_pattern`."""
        header = self.header_pattern.fullmatch(scanner.header)
        if header is None:
            return []
        call = make_call(header["name"].strip(), scanner.object.text, header.groupdict().get("id"))
        return [call] if call else []
