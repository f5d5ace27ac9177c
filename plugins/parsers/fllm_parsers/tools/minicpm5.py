"""The tool calls of MiniCPM5: XML in which a value may be in a CDATA section.

::

    <function name="search"><param name="n">3</param><param name="text"><![CDATA[a < b]]></param></function>
"""

from __future__ import annotations

from fllm.parsing import TagFormat, TaggedToolCallParser, ToolFormat, tagged_arguments


def _tags(between: str) -> TagFormat:
    return TagFormat(
        opening=f'<function{between}name="',
        after_name='">',
        before_key=f'<param{between}name="',
        after_key=('">',),
        after_value="</param>",
        end="</function>",
        quotes=("<![CDATA[", "]]>"),
    )


class MiniCPM5Parser(TaggedToolCallParser):
    """Parses calls of the request's tools, or any if it has none; the space in tags may be missing."""

    tags = _tags(" ")
    opening = (tags.opening, '<functionname="', '<functionĠname="')
    tool_format = ToolFormat(
        begin=tags.opening,
        middle='">',
        end="</function>",
        between="\n",
        arguments=tagged_arguments(tags),
    )

    def tags_after(self, marker: str) -> TagFormat:
        """Return the tags with or without a space, as in the first one."""
        return self.tags if marker == self.tags.opening else _tags("")

    def accepts(self, name: str) -> bool:
        """Return whether the request has this tool, or no tools."""
        return not self.context.tools or self.is_tool(name)
