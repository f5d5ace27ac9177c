"""The tool calls of DeepSeek-V3.2 and later, and of GigaChat 3.5: tags with a token, and a mark of strings.

::

    <｜DSML｜tool_calls>
    <｜DSML｜invoke name="get_weather">
    <｜DSML｜parameter name="city" string="true">Tokyo</｜DSML｜parameter>
    <｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>
    </｜DSML｜invoke>
    </｜DSML｜tool_calls>
"""

from __future__ import annotations

from fllm.parsing import TagFormat, TaggedToolCallParser, ToolFormat, tagged_arguments

_DSML = "｜DSML｜"
_GCML = "｜GCML｜"


def _tags(prefix: str) -> TagFormat:
    others = ("number", "integer", "boolean", "null", "array", "object")
    return TagFormat(
        opening=f'<{prefix}invoke name="',
        after_name='"',
        before_key=f'<{prefix}parameter name="',
        after_key=('"',),
        tag_end=">",
        special=True,
        after_value=f"</{prefix}parameter>",
        end=f"</{prefix}invoke>",
        type_attributes=(("string", ' string="true"'), *((type_, ' string="false"') for type_ in others)),
    )


def _format(tags: TagFormat, section: str) -> ToolFormat:
    return ToolFormat(
        before=f"<{section}>\n",
        begin=tags.opening,
        middle='">\n',
        end=f"{tags.end}\n",
        after=f"</{section}>",
        trigger=f"<{section}>",
        arguments=tagged_arguments(tags, gap="\n"),
    )


class DeepSeekV32Parser(TaggedToolCallParser):
    """Parses calls in ``function_calls``; the tags around them may be missing."""

    tags = _tags(_DSML)
    opening = (tags.opening,)
    section_markers = (f"<{_DSML}function_calls>",)
    closing = (f"</{_DSML}function_calls>",)
    visible_tokens = (_DSML,)
    tool_format = _format(tags, f"{_DSML}function_calls")


class DeepSeekV4Parser(DeepSeekV32Parser):
    """Parses the same calls in ``tool_calls``."""

    section_markers = (f"<{_DSML}tool_calls>",)
    closing = (f"</{_DSML}tool_calls>",)
    visible_tokens = (_DSML,)
    tool_format = _format(DeepSeekV32Parser.tags, f"{_DSML}tool_calls")


class DeepSeekV41Parser(TaggedToolCallParser):
    """Parses calls in ``calls``, with a space before the names of tags."""

    tags = _tags(f"{_DSML} ")
    opening = (tags.opening,)
    section_markers = (f"<{_DSML} calls>",)
    closing = (f"</{_DSML} calls>",)
    visible_tokens = (_DSML,)
    tool_format = _format(tags, f"{_DSML} calls")


class GigaChat35Parser(TaggedToolCallParser):
    """Parses the same calls as V4 with another token."""

    tags = _tags(_GCML)
    opening = (tags.opening,)
    section_markers = (f"<{_GCML}tool_calls>",)
    closing = (f"</{_GCML}tool_calls>",)
    visible_tokens = (_GCML,)
    tool_format = _format(tags, f"{_GCML}tool_calls")
