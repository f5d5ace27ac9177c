"""The tool calls of Mistral: ``[TOOL_CALLS][{"name": ..., "arguments": ...}]`` or ``[TOOL_CALLS]name{...}``.

Models with tokenizers before version 11 write the list. Later ones write a marker for each call, then its
name and the arguments. ``[CALL_ID]`` with an ID, and ``[ARGS]``, may stand between the name and the
arguments.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Sequence

from fllm.parsing import Call, JsonWithHeaderScanner, ToolCallParser, call_from_json, json_list, make_call

_HEADER_CHARACTERS = re.compile(r"[\w.:/\[\]-]*+")
_HEADER = re.compile(r"([\w.:/-]+)(?:\[CALL_ID\](\w+))?(?:\[ARGS\])?")
_ID_CHARACTERS = string.ascii_letters + string.digits


class MistralParser(ToolCallParser[JsonWithHeaderScanner]):
    """Parses calls in both notations."""

    opening = ("[TOOL_CALLS]",)
    inner_markers = ("[ARGS]", "[CALL_ID]")
    skip_before = "[,"
    skip_after = "],"
    multiple_calls = True
    tool_format = json_list("[TOOL_CALLS][", "]", trigger="[TOOL_CALLS]")

    def new_scanner(self) -> JsonWithHeaderScanner:
        """Return a scanner of an object, which a name may precede."""
        return JsonWithHeaderScanner(_HEADER_CHARACTERS)

    def parse_body(self, scanner: JsonWithHeaderScanner) -> Sequence[Call]:
        """Return the call: after a header, the object holds the arguments, else it also holds the name."""
        if not scanner.header:
            call = call_from_json(scanner.object.members)
        else:
            header = _HEADER.fullmatch(scanner.header)
            call = make_call(header[1], scanner.object.text, header[2]) if header else None
        return [call] if call and call.arguments.startswith("{") else []

    @staticmethod
    def new_call_id() -> str:
        """Return nine random letters and digits; Mistral's templates reject any other ID."""
        return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(9))
