"""The tool calls of Step 3, in its own markup between markers.

::

    <｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜>
    <steptml:invoke name="get_weather">
    <steptml:parameter name="city">Tokyo</steptml:parameter></steptml:invoke>
    <｜tool_call_end｜><｜tool_calls_end｜>
"""

from __future__ import annotations

from fllm.parsing.argument_constraints import tagged
from fllm.parsing.tag_reader import Tags
from fllm.parsing.tagged_tool_calls import TaggedCallParser
from fllm.parsing.tool_format import ToolFormat

_KIND = "function<｜tool_sep｜>"


class Step3Parser(TaggedCallParser):
    """The markers may be missing."""

    tags = Tags(
        opening='<steptml:invoke name="',
        after_name='">',
        before_key='<steptml:parameter name="',
        after_key=('">',),
        after_value="</steptml:parameter>",
        end="</steptml:invoke>",
    )
    opening = ('<steptml:invoke name="',)
    around = ("<｜tool_calls_begin｜>", "<｜tool_call_begin｜>", _KIND)
    closing = ("<｜tool_call_end｜>", "<｜tool_calls_end｜>")
    visible_tokens = (*around[:2], "<｜tool_sep｜>", *closing)
    format = ToolFormat(
        before="<｜tool_calls_begin｜>",
        begin=f'<｜tool_call_begin｜>{_KIND}<steptml:invoke name="',
        middle='">',
        end="</steptml:invoke><｜tool_call_end｜>",
        after="<｜tool_calls_end｜>",
        arguments=tagged(tags),
    )
