"""The tool calls of GLM 4.5 to 4.7.

::

    <tool_call>get_weather
    <arg_key>city</arg_key>
    <arg_value>Tokyo</arg_value>
    </tool_call>
"""

from __future__ import annotations

from fllm.parsing import (
    TagFormat,
    TaggedToolCallParser,
    ToolFormat,
    tagged_arguments,
)


class Glm45Parser(TaggedToolCallParser):
    """Parses tagged arguments whose values are JSON unless they are strings.

    A name without arguments is a call only if it is one of the request's tools, or the request has none.
    """

    tags = TagFormat(
        opening="<tool_call>",
        before_key="<arg_key>",
        after_key=("</arg_key>", "<arg_value>"),
        after_value="</arg_value>",
        end="</tool_call>",
        typed=True,
    )
    opening = ("<tool_call>",)
    closing = ("</tool_call>",)
    inner_markers = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
    tool_format = ToolFormat(
        begin="<tool_call>",
        middle="\n",
        end="</tool_call>",
        between="\n",
        arguments=tagged_arguments(tags, gap="\n"),
    )

    def accepts_without_arguments(self, name: str) -> bool:
        """Return whether the request has this tool, or no tools."""
        return not self.context.tools or self.is_tool(name)


class Glm47Parser(Glm45Parser):
    """Parses the same calls; the model writes them without line breaks."""

    tool_format = ToolFormat(
        begin="<tool_call>", middle="", end="</tool_call>", arguments=tagged_arguments(Glm45Parser.tags)
    )
