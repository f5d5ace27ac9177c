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

from fllm.parsing import (
    Call,
    TagFormat,
    TaggedBodyScanner,
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

    def parse_body(self, scanner: TaggedBodyScanner) -> Sequence[Call]:
        """Return the call, if its name is known."""
        known = {tool.name for tool in self.context.tools}
        return [call for call in super().parse_body(scanner) if not known or call.name in known]
