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

from fllm.parsing import (
    Call,
    CallHead,
    HeaderToolCallParser,
    JsonCallReader,
    JsonWithHeaderScanner,
    call_from_json,
    json_list,
)

_ID_CHARACTERS = string.ascii_letters + string.digits


class MistralParser(HeaderToolCallParser):
    """Parses both notations: after a header, the object holds the arguments, otherwise the name as well."""

    opening = ("[TOOL_CALLS]",)
    inner_markers = ("[ARGS]", "[CALL_ID]")
    skip_before = "[,"
    skip_after = "],}"
    multiple_calls = True
    header_characters = re.compile(r"[\w.:/\[\]\s-]*+")
    header_pattern = re.compile(
        r"(?P<name>[\w.:/-]+)\s*+(?:\[CALL_ID\]\s*+(?P<id>\w+)\s*+)?(?:\[ARGS\]\s*+)?"
    )
    tool_format = json_list("[TOOL_CALLS][", "]", trigger="[TOOL_CALLS]")

    def new_scanner(self) -> JsonWithHeaderScanner:
        """Return a scanner of an object, which a name may precede."""
        scanner = super().new_scanner()
        self._reader = JsonCallReader(scanner.object)
        return scanner

    def read_head(self, scanner: JsonWithHeaderScanner) -> CallHead | None:
        """Return the beginning of a call in either notation."""
        return super().read_head(scanner) if scanner.header else self._reader.read()

    def parse_body(self, scanner: JsonWithHeaderScanner) -> Sequence[Call]:
        """Return a call without a header whose arguments are not written as an object."""
        call = None if scanner.header else call_from_json(scanner.object.members)
        return [call] if call and call.arguments.startswith("{") else []

    @staticmethod
    def new_call_id() -> str:
        """Return nine random letters and digits; Mistral's templates reject any other ID."""
        return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(9))
