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

from fllm.parsing import Call, TagFormat, TaggedToolCallParser, ToolFormat, tagged


class MiniMaxM2Parser(TaggedToolCallParser):
    """One or more calls between two tags; of tools that the request has, if it has any."""

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
        arguments=tagged(tags, gap="\n"),
    )

    def parse_body(self, body: str) -> Sequence[Call]:
        """The one call."""
        known = {tool.name for tool in self.context.tools}
        return [call for call in super().parse_body(body) if not known or call.name in known]
