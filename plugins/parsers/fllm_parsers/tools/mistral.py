"""The tool calls of Mistral: ``[TOOL_CALLS][{"name": ..., "arguments": ...}]`` or ``[TOOL_CALLS]name{...}``.

The list is what models with tokenizers before version 11 write. Later ones write a marker for each call, then
its name and the arguments; between these two may stand ``[CALL_ID]`` with an id, and ``[ARGS]``.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Sequence

from fllm.parsing.json_tool_calls import HeadedJson, JsonCallParser, json_list, named, split_head
from fllm.parsing.tool_call_parser import Call

_HEAD = re.compile(r"[\w.:/\[\]-]*+")
_NAME = re.compile(r"([\w.:/-]+)(?:\[CALL_ID\](\w+))?(?:\[ARGS\])?")
_ID = string.ascii_letters + string.digits


class MistralParser(JsonCallParser):
    """Both ways to write a call, whichever the model has learnt."""

    opening = ("[TOOL_CALLS]",)
    inside = ("[ARGS]", "[CALL_ID]")
    lead = "[,"
    trail = "],"
    repeats = True
    format = json_list("[TOOL_CALLS][", "]", trigger="[TOOL_CALLS]")

    def reader(self) -> HeadedJson:
        """An object, before which a name may stand."""
        return HeadedJson(_HEAD)

    def read(self, body: str) -> Sequence[Call]:
        """With a name before it, the object is the arguments; else it has both."""
        head, found = split_head(body)
        if not head:
            return super().read(found)
        name = _NAME.fullmatch(head)
        call = named(name[1], found, name[2]) if name else None
        return [call] if call else []

    @staticmethod
    def new_call_id() -> str:
        """Nine letters and digits: Mistral's templates refuse any other id."""
        return "".join(secrets.choice(_ID) for _ in range(9))
