"""The tool calls of Hermes, and of Qwen 2.5 and 3: JSON objects in ``<tool_call>`` tags."""

from __future__ import annotations

from fllm.parsing import JsonToolCallParser, ToolFormat


class HermesParser(JsonToolCallParser):
    """Parses one object between each pair of tags."""

    opening = ("<tool_call>",)
    closing = ("</tool_call>",)
    tool_format = ToolFormat(
        begin='<tool_call>\n{"name": "',
        middle='", "arguments": ',
        end="}\n</tool_call>",
        between="\n",
        trigger="<tool_call>",
    )


class LongCatParser(JsonToolCallParser):
    """Parses the tool calls of LongCat, whose tags have another name."""

    opening = ("<longcat_tool_call>",)
    closing = ("</longcat_tool_call>",)
    tool_format = ToolFormat(
        begin='<longcat_tool_call>{"name": "',
        middle='", "arguments": ',
        end="}</longcat_tool_call>",
        between="\n",
        trigger="<longcat_tool_call>",
    )
