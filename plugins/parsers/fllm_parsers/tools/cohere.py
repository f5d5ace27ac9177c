"""The tool calls of Cohere's Command models: a list of JSON objects with a number each.

::

    <|START_ACTION|>[
        {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Tokyo"}}
    ]<|END_ACTION|>
"""

from __future__ import annotations

from fllm.parsing import JsonToolCallParser, ToolFormat


class CohereCommandParser(JsonToolCallParser):
    """Parses lists of calls. The client does not receive the numbers: they begin again in each list."""

    opening = ("<|START_ACTION|>",)
    closing = ("<|END_ACTION|>",)
    skip_before = "[,"
    skip_after = "],}"
    multiple_calls = True
    # A constrained model writes the number 0 in every call. The template numbers the calls of a history.
    tool_format = ToolFormat(
        before="<|START_ACTION|>[\n    ",
        begin='{"tool_call_id": "0", "tool_name": "',
        middle='", "parameters": ',
        end="}",
        between=",\n    ",
        after="\n]<|END_ACTION|>",
        trigger="<|START_ACTION|>",
    )
