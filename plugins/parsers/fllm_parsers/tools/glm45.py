"""The tool calls of GLM 4.5 to 4.7.

::

    <tool_call>get_weather
    <arg_key>city</arg_key>
    <arg_value>Tokyo</arg_value>
    </tool_call>
"""

from __future__ import annotations

from collections.abc import Sequence

from fllm.parsing import Call, TagFormat, TaggedToolCallParser, ToolFormat, tagged


class Glm45Parser(TaggedToolCallParser):
    """Values are JSON unless they are strings.

    A name alone is a call only of a tool that the request has, if it has any.
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
        arguments=tagged(tags, gap="\n"),
    )

    def parse_body(self, body: str) -> Sequence[Call]:
        """The one call."""
        known = {tool.name for tool in self.context.tools}
        return [
            call
            for call in super().parse_body(body)
            if call.arguments != "{}" or not known or call.name in known
        ]


class Glm47Parser(Glm45Parser):
    """The same; the model writes it without line breaks."""

    tool_format = ToolFormat(
        begin="<tool_call>", middle="", end="</tool_call>", arguments=tagged(Glm45Parser.tags)
    )
