"""The tool calls of GLM 4.5 to 4.7.

::

    <tool_call>get_weather
    <arg_key>city</arg_key>
    <arg_value>Tokyo</arg_value>
    </tool_call>
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

    def parse_body(self, scanner: TaggedBodyScanner) -> Sequence[Call]:
        """Return the call, if it has arguments or a known name."""
        known = {tool.name for tool in self.context.tools}
        return [
            call
            for call in super().parse_body(scanner)
            if call.arguments != "{}" or not known or call.name in known
        ]


class Glm47Parser(Glm45Parser):
    """Parses the same calls; the model writes them without line breaks."""

    tool_format = ToolFormat(
        begin="<tool_call>", middle="", end="</tool_call>", arguments=tagged_arguments(Glm45Parser.tags)
    )
