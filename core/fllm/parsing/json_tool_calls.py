"""Calls that are JSON objects, and a reader for what many formats put before one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Literal

from fllm.parsing.json_objects import JsonObject, read_object
from fllm.parsing.json_scanner import JsonScanner
from fllm.parsing.tool_call_parser import BodyScanner, Call, ToolCallParser
from fllm.structured_output.tool_format import ToolFormat

State = Literal["open", "complete", "broken"]

ARGUMENTS = ("arguments", "parameters")
"""The keys that models write the arguments under; the first that is there counts."""

LONGEST_HEAD = 256
"""Characters before an object; no function's name is longer."""


def json_list(
    before: str, after: str, *, between: str = ", ", arguments: str = "arguments", trigger: str = ""
) -> ToolFormat:
    """The format of calls that are JSON objects in a row."""
    return ToolFormat(
        before=before,
        begin='{"name": "',
        middle=f'", "{arguments}": ',
        end="}",
        between=between,
        after=after,
        trigger=trigger,
    )


class JsonToolCallParser(ToolCallParser):
    """The base of a parser whose calls are JSON objects with a name and arguments, each as one body."""

    def new_scanner(self) -> BodyScanner:
        """For the object."""
        return JsonScanner()

    def parse_body(self, body: str) -> Sequence[Call]:
        """Its call, if it is one with an object as arguments."""
        found = read_object(body)
        call = call_from_json(found) if found else None
        return [call] if call and call.arguments.startswith("{") else []


def call_from_json(found: JsonObject) -> Call | None:
    """Name and arguments of a call, the latter as the model wrote them."""
    name = found.members.get("name", "")
    arguments = next((found.members[key] for key in ARGUMENTS if key in found.members), None)
    if arguments is None or not name.startswith('"'):
        return None
    return make_call(json.loads(name), arguments)


def make_call(name: str, arguments: str, call_id: str | None = None) -> Call | None:
    """The call of that name, if it can be one."""
    # No half of a surrogate pair, which no client could be sent.
    return Call(name, plain(arguments), call_id) if name and name.isprintable() else None


def plain(arguments: str) -> str:
    """Arguments as an object where they are one in disguise: encoded twice, or none at all.

    Other values (a number, a list, a sentence) stay as they are: the client knows what its tool makes of
    them.
    """
    if arguments == "null":
        return "{}"
    if arguments.startswith('"'):
        inner = json.loads(arguments).strip()
        return inner if read_object(inner) else arguments
    return arguments


def split_header(body: str) -> tuple[str, str]:
    """The head, and the object behind it, of what a `JsonWithHeader` has read."""
    brace = body.index("{")
    return body[:brace], body[brace:]


class JsonWithHeader:
    """A `BodyScanner` of a JSON object with a head before its brace, such as a name."""

    def __init__(self, head: re.Pattern[str]) -> None:
        """``head`` is a run of what may be in the head, such as ``[\\w.]*+``; it never has a brace."""
        self._head = ""
        self._pattern = head
        self._scanner = JsonScanner()
        self._broken = False

    @property
    def state(self) -> State:
        """Broken, too, by what can't be in the head."""
        return "broken" if self._broken else self._scanner.state

    @property
    def length(self) -> int:
        """Of head and object."""
        return len(self._head) + self._scanner.length

    def feed(self, text: str, start: int = 0) -> None:
        """Read on, from ``start`` in ``text``."""
        if not self._scanner.length:
            start = self._read_head(text, start)
        if start < len(text) and not self._broken:
            self._scanner.feed(text, start)

    def _read_head(self, text: str, start: int) -> int:
        match = self._pattern.match(text, start)
        assert match is not None, "a run may be empty"
        self._head += match[0][: LONGEST_HEAD + 1]
        end = match.end()
        self._broken = len(self._head) > LONGEST_HEAD or text[end : end + 1] not in ("", "{")
        return end
