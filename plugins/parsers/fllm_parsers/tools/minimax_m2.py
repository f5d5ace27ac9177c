"""The tool calls of MiniMax M2.

::

    <minimax:tool_call>
    <invoke name="get_weather">
    <parameter name="city">Tokyo</parameter>
    </invoke>
    </minimax:tool_call>
"""

from __future__ import annotations

from collections.abc import Sequence

from fllm.parsing.argument_constraints import tagged
from fllm.parsing.tag_reader import Tags
from fllm.parsing.tagged_tool_calls import TaggedCallParser
from fllm.parsing.tool_call_parser import Call
from fllm.parsing.tool_format import ToolFormat


class MiniMaxM2Parser(TaggedCallParser):
    """One or more calls between two tags; of tools that the request has, if it has any."""

    tags = Tags(
        opening='<invoke name="',
        after_name='">',
        before_key='<parameter name="',
        after_key=('">',),
        after_value="</parameter>",
        end="</invoke>",
    )
    opening = ('<invoke name="',)
    around = ("<minimax:tool_call>",)
    closing = ("</minimax:tool_call>",)
    format = ToolFormat(
        before="<minimax:tool_call>\n",
        begin='<invoke name="',
        middle='">\n',
        end="</invoke>\n",
        after="</minimax:tool_call>",
        trigger="<minimax:tool_call>",
        arguments=tagged(tags, gap="\n"),
    )

    def read(self, body: str) -> Sequence[Call]:
        """The one call."""
        known = {tool.name for tool in self.context.tools}
        return [call for call in super().read(body) if not known or call.name in known]
