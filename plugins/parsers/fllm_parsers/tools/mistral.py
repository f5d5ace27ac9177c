"""The tool calls of Mistral: ``[TOOL_CALLS][{"name": ..., "arguments": ...}]`` or ``[TOOL_CALLS]name{...}``.

The list is what models with tokenizers before version 11 write. Later ones write a marker for each call, then
its name and the arguments; between these two may stand ``[CALL_ID]`` with an id, and ``[ARGS]``.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Sequence

from fllm.parsing import Call, JsonToolCallParser, JsonWithHeader, json_list, make_call, split_header

_HEAD = re.compile(r"[\w.:/\[\]-]*+")
_NAME = re.compile(r"([\w.:/-]+)(?:\[CALL_ID\](\w+))?(?:\[ARGS\])?")
_ID = string.ascii_letters + string.digits


class MistralParser(JsonToolCallParser):
    """Both ways to write a call, whichever the model has learnt."""

    opening = ("[TOOL_CALLS]",)
    inner_markers = ("[ARGS]", "[CALL_ID]")
    skip_before = "[,"
    skip_after = "],"
    multiple_calls = True
    tool_format = json_list("[TOOL_CALLS][", "]", trigger="[TOOL_CALLS]")

    def new_scanner(self) -> JsonWithHeader:
        """An object, before which a name may stand."""
        return JsonWithHeader(_HEAD)

    def parse_body(self, body: str) -> Sequence[Call]:
        """With a name before it, the object is the arguments; else it has both."""
        head, found = split_header(body)
        if not head:
            return super().parse_body(found)
        name = _NAME.fullmatch(head)
        call = make_call(name[1], found, name[2]) if name else None
        return [call] if call else []

    @staticmethod
    def new_call_id() -> str:
        """Nine letters and digits: Mistral's templates refuse any other id."""
        return "".join(secrets.choice(_ID) for _ in range(9))
