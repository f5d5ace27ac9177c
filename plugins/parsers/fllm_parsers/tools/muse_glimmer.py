"""The tool calls of Muse Glimmer: tags with a prefix, each call in a message of its own.

::

    to=get_weather<|message|><atem:function_calls>
    <atem:invoke name="get_weather">
    <atem:parameter name="city">Tokyo</atem:parameter>
    </atem:invoke>
    </atem:function_calls><|eom|>
"""

from __future__ import annotations

from fllm.parsing import TagFormat, TaggedToolCallParser, ToolFormat, tagged_arguments


class MuseGlimmerParser(TaggedToolCallParser):
    """Parses calls, but none in a message to ``self``. The reasoning parser handles the messages."""

    tags = TagFormat(
        opening='<atem:invoke name="',
        after_name='">',
        before_key='<atem:parameter name="',
        after_key=('">',),
        after_value="</atem:parameter>",
        end="</atem:invoke>",
        typed=True,
    )
    opening = (tags.opening,)
    section_markers = ("<atem:function_calls>",)
    closing = ("</atem:function_calls>",)
    ignored_section = ("to=self<|message|>", "<|eom|>")
    visible_tokens = ("<|message|>", "<|eom|>")
    tool_format = ToolFormat(
        begin=f"<atem:function_calls>\n{tags.opening}",
        middle='">\n',
        end="</atem:invoke>\n</atem:function_calls>",
        between="\n",
        trigger="<atem:function_calls>",
        arguments=tagged_arguments(tags, gap="\n"),
    )
