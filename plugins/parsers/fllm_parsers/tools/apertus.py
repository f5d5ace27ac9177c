"""The tool calls of Apertus: a list of JSON objects whose only key is the name of the function.

::

    <|tools_prefix|>[{"get_weather": {"city": "Tokyo"}}, {"get_time": {}}]<|tools_suffix|>
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from fllm.parsing import Call, CallHead, JsonArguments, JsonScanner, JsonToolCallParser, ToolFormat, make_call


class ApertusParser(JsonToolCallParser):
    """Parses objects with one member, whose value is an object."""

    opening = ("<|tools_prefix|>",)
    closing = ("<|tools_suffix|>",)
    skip_before = "[,"
    skip_after = "],}"
    multiple_calls = True
    tool_format = ToolFormat(
        before="<|tools_prefix|>[",
        begin='{"',
        middle='": ',
        end="}",
        between=", ",
        after="]<|tools_suffix|>",
        trigger="<|tools_prefix|>",
    )

    def read_head(self, scanner: JsonScanner) -> CallHead | None:
        """Return the key and the value of the first member."""
        if len(scanner.bounds) < 3:
            return None
        key_start, key_end, start = scanner.bounds[:3]
        call = make_call(json.loads(scanner.json_text(key_start, key_end)), "{}")
        if call is None or scanner.json_text(start, start + 1) != "{":
            return None
        return CallHead(call.name, JsonArguments(scanner, start, 0))

    def parse_body(self, scanner: JsonScanner) -> Sequence[Call]:
        """Return the call, if the value of the only member is an object."""
        calls = [make_call(name, arguments) for name, arguments in scanner.members.items()]
        return [call for call in calls[:1] if call and call.arguments.startswith("{") and len(calls) == 1]
