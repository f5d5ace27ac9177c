"""The tool calls of MiniMax M2.

::

    <minimax:tool_call>
    <invoke name="get_weather">
    <parameter name="city">Tokyo</parameter>
    </invoke>
    </minimax:tool_call>
"""

from __future__ import annotations

from fllm.parsing import (
    TagFormat,
    TaggedToolCallParser,
    ToolFormat,
    tagged_arguments,
)


class MiniMaxM2Parser(TaggedToolCallParser):
    """Parses one or more calls between two tags, and only calls of the request's tools, if it has any."""

    tags = TagFormat(
        opening='<invoke name="',
        after_name='">',
        before_key='<parameter name="',
        after_key=('">',),
        after_value="</parameter>",
        end="</invoke>",
    )
    opening = ('<invoke name="',)
    section_markers = ("<minimax:tool_call>",)
    closing = ("</minimax:tool_call>",)
    tool_format = ToolFormat(
        before="<minimax:tool_call>\n",
        begin='<invoke name="',
        middle='">\n',
        end="</invoke>\n",
        after="</minimax:tool_call>",
        trigger="<minimax:tool_call>",
        arguments=tagged_arguments(tags, gap="\n"),
    )

    def accepts(self, name: str) -> bool:
        """Return whether the request has this tool, or no tools."""
        return not self.context.tools or self.is_tool(name)
