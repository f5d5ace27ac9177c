"""Tool calls whose arguments are JSON objects, with or without a header that holds the name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeGuard, TypeVar

from msgspec import Struct

from fllm.parsing.body_scanner import MAX_NAME_LENGTH, BodyScanner, ScanState
from fllm.parsing.json_objects import read_object
from fllm.parsing.json_scanner import JsonScanner
from fllm.parsing.tool_call_parser import Call, ToolCallParser
from fllm.parsing.tool_parameters import Parameters
from fllm.structured_output.tool_format import ToolFormat

_Scanner = TypeVar("_Scanner", bound=BodyScanner)

_NAME_KEYS = ("name", "tool_name")
"""The keys under which models write the name; the first one that is present counts."""
_ARGUMENT_KEYS = ("arguments", "parameters", "args")
"""The keys under which models write the arguments; the first one that is present counts."""
_OTHER_KEYS = ("type", "id", "tool_call_id")
"""The keys of what is neither a name nor an argument."""


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


class JsonArguments:
    """The text of one object within what a scanner reads, as it arrives."""

    def __init__(self, scanner: JsonScanner, start: int = 0, member: int | None = None) -> None:
        """Read the object at ``start``: the value of a member of the outermost object, or that object."""
        self._scanner = scanner
        self._start = self._position = start
        self._member = member

    @property
    def has_begun(self) -> bool:
        """Whether the first value within the object has begun, or the object is complete."""
        return min(self._scanner.closable, self._end) > self._start + 1

    def take(self) -> str:
        """Return the text that is new and that `closing` would complete."""
        return self._take(min(self._scanner.closable, self._end))

    def take_rest(self) -> str:
        """Return all text that is new."""
        return self._take(min(self._scanner.length, self._end))

    def closing(self) -> str:
        """Return what makes the text JSON."""
        depth = 0 if self._member is None else 1
        return self._scanner.closing(depth) if self._end > self._scanner.closable else ""

    def _take(self, end: int) -> str:
        start, self._position = self._position, max(self._position, end)
        return self._scanner.json_text(start, end) if start < end else ""

    @property
    def _end(self) -> int:
        """Where the object ends; beyond the text that has been read if it has not ended."""
        scanner = self._scanner
        if self._member is None:
            return scanner.length if scanner.state == "complete" else scanner.length + 1
        [*_, end] = scanner.bounds[: 4 * self._member + 4]
        return end if len(scanner.bounds) >= 4 * self._member + 4 else scanner.length + 1


class JsonArgumentsParser(ToolCallParser[_Scanner]):
    """The base of a parser whose calls have a JSON object of arguments, which is emitted as it arrives."""

    _head: CallHead | None = None
    _seen: tuple[int, bool] = (0, False)

    def object_of(self, scanner: _Scanner) -> JsonScanner:
        """Return the scanner of the object that holds the arguments."""
        raise NotImplementedError

    def read_head(self, scanner: _Scanner) -> CallHead | None:
        """Return the beginning of the call, or ``None`` if it is not known or not usable."""
        raise NotImplementedError

    def begin_body(self) -> None:
        """Clear the state of the previous call."""
        self._head, self._seen = None, (0, False)

    def stream_body(self, scanner: _Scanner) -> None:
        """Emit the call once its name is known and its first argument has begun."""
        json_object = self.object_of(scanner)
        seen = len(json_object.bounds), json_object.length > 0
        if seen != self._seen and not (self._head and self._head.arguments):
            self._seen = seen
            head = self.read_head(scanner)
            self._head = head if head and (self.marker or self.is_tool(head.name)) else None
        if not (self._head and self._head.arguments):
            return
        if not self.calls_in_body and self._head.arguments.has_begun:
            self.begin_call(self._head.name, self._head.id)
        if self.calls_in_body:
            self.add_arguments(self._head.arguments.take())

    def cut_body(self, scanner: _Scanner) -> None:
        """Add the rest of the arguments; begin the call if they have begun."""
        if not (self._head and self._head.arguments):
            return
        if not self.calls_in_body:
            self.begin_call(self._head.name, self._head.id)
        self.add_arguments(self._head.arguments.take_rest())

    def looks_like_call(self, scanner: _Scanner) -> bool:
        """Return whether a call precedes, or the name of one of the request's tools is complete."""
        return self.follows_call or self._head is not None

    def break_body(self, scanner: _Scanner, rest: str) -> str:
        """Add what makes the arguments JSON; return the text after them."""
        assert self._head, "a call was begun"
        assert self._head.arguments, "a call begins with its arguments"
        self.add_arguments(self._head.arguments.closing())
        json_object = self.object_of(scanner)
        return json_object.text[json_object.closable :] + rest

    def begins_next_call(self, scanner: _Scanner, marker: str) -> bool:
        """Return whether a string does not end, and the line does."""
        return self.object_of(scanner).ends_with_control


class JsonToolCallParser(JsonArgumentsParser[JsonScanner]):
    """The base of a parser whose calls are JSON objects with a name and arguments."""

    skip_after = "}"  # models write one brace too many
    _reader: JsonCallReader

    def new_scanner(self) -> JsonScanner:
        """Return a scanner of the object."""
        self.begin_body()
        scanner = JsonScanner()
        self._reader = JsonCallReader(scanner)
        return scanner

    def object_of(self, scanner: JsonScanner) -> JsonScanner:
        """Return the scanner."""
        return scanner

    def read_head(self, scanner: JsonScanner) -> CallHead | None:
        """Return the beginning of the call."""
        return self._reader.read()

    def parse_body(self, scanner: JsonScanner) -> Sequence[Call]:
        """Return the call, if the object has a name and its arguments are an object."""
        members = scanner.members
        call = call_from_json(members)
        if call is None and self.marker and members.keys() <= {*_NAME_KEYS, *_OTHER_KEYS}:
            call = call_from_json({**members, "arguments": "{}"})
            return [call] if call and self.is_tool(call.name) else []
        return [call] if call and call.arguments.startswith("{") else []


class CallHead(Struct):
    """The beginning of a call whose arguments are JSON."""

    name: str
    arguments: JsonArguments | None
    """``None`` until they begin."""
    id: str | None = None


class JsonCallReader:
    """Reads the name and the beginning of the arguments from an object that is a call.

    Of members with the same meaning, the first one counts. The arguments must be an object.
    """

    def __init__(self, scanner: JsonScanner) -> None:
        self.scanner = scanner
        self._next = 0
        """Number of the first member that may tell more."""
        self._seen = 0
        """Number of bounds at the last reading, so that none is read again with each piece of text."""
        self._name: object = None
        self._arguments: JsonArguments | None = None
        self._usable = True

    def read(self) -> CallHead | None:
        """Return the beginning of the call, or ``None`` if the name is not known yet or not usable."""
        bounds, scanner = self.scanner.bounds, self.scanner
        is_new, self._seen = len(bounds) > self._seen, len(bounds)
        while is_new and len(bounds) >= 4 * self._next + 3 and self._usable:
            key_start, key_end, start, *end = bounds[4 * self._next : 4 * self._next + 4]
            key = json.loads(scanner.json_text(key_start, key_end))
            if key in _NAME_KEYS and self._name is None:
                if not end:
                    break
                self._name = json.loads(scanner.json_text(start, end[0]))
                self._usable = is_name(self._name)
            elif key in _ARGUMENT_KEYS and self._arguments is None:
                self._usable = scanner.json_text(start, start + 1) == "{"
                self._arguments = JsonArguments(scanner, start, self._next)
            self._next += 1
        return CallHead(self._name, self._arguments) if self._usable and is_name(self._name) else None


def call_from_json(members: Mapping[str, str]) -> Call | None:
    """Return the call that an object with these members describes, with the arguments as they were written.

    ``members`` are the JSON texts of the values, by key, such as `JsonScanner.members`. Return ``None`` if
    there is no usable name, or no arguments.
    """
    name = next((members[key] for key in _NAME_KEYS if key in members), "")
    arguments = next((members[key] for key in _ARGUMENT_KEYS if key in members), None)
    if arguments is None or not name.startswith('"'):
        return None
    return make_call(json.loads(name), arguments)


def make_call(name: str, arguments: str, call_id: str | None = None) -> Call | None:
    """Return a call of the function ``name``, or ``None`` if no client could receive such a name.

    ``arguments`` is JSON text. It becomes an object where it is ``null``, an empty string, or an object that
    was encoded twice.
    """
    return Call(name, _unwrapped(arguments), call_id) if is_name(name) else None


def is_name(name: object) -> TypeGuard[str]:
    """Return whether a client could receive this name of a function."""
    # Printable text has no half of a surrogate pair, which cannot be encoded as UTF-8.
    return isinstance(name, str) and bool(name) and name.isprintable()


def _unwrapped(arguments: str) -> str:
    """Return the arguments as an object if they are empty or an object that was encoded twice.

    Other values (a number, a list, a sentence) are returned unchanged, because a client's tool may accept
    them.
    """
    if arguments == "null":
        return "{}"
    if arguments.startswith('"'):
        text = json.loads(arguments).strip()
        inner = read_object(text or "{}")
        return inner.scanner.json_text(0, len(inner.text)) if inner else arguments
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


class HeaderToolCallParser(JsonArgumentsParser[JsonWithHeaderScanner]):
    """The base of a parser whose calls have a header with the name before a JSON object of arguments."""

    skip_after = "}"  # models write one brace too many
    header_pattern: ClassVar[re.Pattern[str]]
    """Matches the whole header, with a group ``name`` and, optionally, a group ``id``."""
    header_characters: ClassVar[re.Pattern[str]] = re.compile(r"[^{]*+")
    """Matches a run of the characters that a header may have; a brace is never one of them."""

    def new_scanner(self) -> JsonWithHeaderScanner:
        """Return a scanner of the header and the object."""
        self.begin_body()
        return JsonWithHeaderScanner(self.header_characters)

    def object_of(self, scanner: JsonWithHeaderScanner) -> JsonScanner:
        """Return the scanner of the object after the header."""
        return scanner.object

    def read_head(self, scanner: JsonWithHeaderScanner) -> CallHead | None:
        """Return the beginning of the call, once the header is complete, if it matches `header_pattern`."""
        return self._match_header(scanner) if scanner.object.length else None

    def looks_like_call(self, scanner: JsonWithHeaderScanner) -> bool:
        """Return whether the header is complete; otherwise it may be text."""
        return scanner.object.length > 0 and super().looks_like_call(scanner)

    def begins_next_call(self, scanner: JsonWithHeaderScanner, marker: str) -> bool:
        """Return whether the header or a string does not end; neither contains the marker."""
        within_header = not scanner.object.length and marker in self.opening
        return within_header or super().begins_next_call(scanner, marker)

    def cut_body(self, scanner: JsonWithHeaderScanner) -> None:
        """Add the rest of the arguments, or begin the call if its tool has no parameters."""
        super().cut_body(scanner)
        call = self.call_without_arguments(scanner)
        if call and self._is_complete(call.name, scanner.header):
            self.begin_call(call.name, call.id)
            self.add_arguments(call.arguments)

    def _is_complete(self, name: str, header: str) -> bool:
        """Return whether a header is a call of a tool without parameters, which no marker need end."""
        longer = header.endswith(name) and any(
            tool.name.startswith(name) and tool.name != name for tool in self.context.tools
        )
        unmarked = not self.closing or (self.tool_format is not None and not self.tool_format.end)
        return unmarked and self.is_tool(name) and not longer and not self._has_parameters(name)

    def _has_parameters(self, name: str) -> bool:
        return bool(Parameters.of(name, self.context.tools).schemas)

    def call_without_arguments(self, scanner: JsonWithHeaderScanner) -> Call | None:
        """Return the call if the header is complete and no object follows."""
        head = None if scanner.object.length else self._match_header(scanner)
        return Call(head.name, "{}", head.id) if head else None

    def _match_header(self, scanner: JsonWithHeaderScanner) -> CallHead | None:
        match = self.header_pattern.fullmatch(scanner.header)
        if match is None or not is_name(name := match["name"].strip()):
            return None
        return CallHead(name, JsonArguments(scanner.object), match.groupdict().get("id"))
