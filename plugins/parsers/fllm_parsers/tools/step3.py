"""The tool calls of Step 3: ``steptml`` tags between markers.

::

    <｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜>
    <steptml:invoke name="get_weather">
    <steptml:parameter name="city">Tokyo</steptml:parameter></steptml:invoke>
    <｜tool_call_end｜><｜tool_calls_end｜>
"""

from __future__ import annotations

from fllm.parsing import TagFormat, TaggedToolCallParser, ToolFormat, tagged_arguments

_KIND = "function<｜tool_sep｜>"


class Step3Parser(TaggedToolCallParser):
    """Parses calls around which the markers may be missing."""

    tags = TagFormat(
        opening='<steptml:invoke name="',
        after_name='">',
        before_key='<steptml:parameter name="',
        after_key=('">',),
        after_value="</steptml:parameter>",
        end="</steptml:invoke>",
    )
    opening = ('<steptml:invoke name="',)
    section_markers = ("<｜tool_calls_begin｜>", "<｜tool_call_begin｜>", _KIND)
    closing = ("<｜tool_call_end｜>", "<｜tool_calls_end｜>")
    visible_tokens = (*section_markers[:2], "<｜tool_sep｜>", *closing)
    tool_format = ToolFormat(
        before="<｜tool_calls_begin｜>",
        begin=f'<｜tool_call_begin｜>{_KIND}<steptml:invoke name="',
        middle='">',
        end="</steptml:invoke><｜tool_call_end｜>",
        after="<｜tool_calls_end｜>",
        arguments=tagged_arguments(tags),
    )
