"""The tool calls of Qwen3-Coder and of other models that use the same tags.

::

    <tool_call>
    <function=get_weather>
    <parameter=city>
    Tokyo
    </parameter>
    </function>
    </tool_call>
"""

from __future__ import annotations

from typing import ClassVar

from msgspec.structs import replace

from fllm.parsing import TagFormat, TaggedToolCallParser, ToolFormat, tagged_arguments

_TAGS = TagFormat(
    opening="<function=",
    after_name=">",
    before_key="<parameter=",
    after_key=(">",),
    after_value="</parameter>",
    end="</function>",
    cut=("</function>\n</tool_call>",),
    padding="\n",
)


def _format(begin: str, end: str, tags: TagFormat, padding: str) -> ToolFormat:
    return ToolFormat(
        begin=f"{begin}\n<function=",
        middle=">\n",
        end=f"</function>\n{end}",
        between="\n",
        trigger=begin,
        arguments=tagged_arguments(tags, gap="\n", padding=padding),
    )


class Qwen3CoderParser(TaggedToolCallParser):
    """Parses calls with an optional ``<tool_call>``; line breaks next to the tags of a value are dropped."""

    tags: ClassVar[TagFormat] = _TAGS
    opening = ("<function=",)
    section_markers = ("<tool_call>",)
    closing = ("</tool_call>",)
    tool_format = _format("<tool_call>", "</tool_call>", _TAGS, "\n")


class MiMoParser(Qwen3CoderParser):
    """Parses the same calls, but keeps the line breaks next to the tags of a value."""

    tags = replace(_TAGS, padding="")
    tool_format = _format("<tool_call>", "</tool_call>", tags, "")


class SeedOssParser(TaggedToolCallParser):
    """Parses calls with other tags around them and with values on the lines of their tags."""

    tags = replace(_TAGS, cut=("</function>\n</seed:tool_call>",))
    opening = ("<function=",)
    section_markers = ("<seed:tool_call>",)
    closing = ("</seed:tool_call>",)
    tool_format = _format("<seed:tool_call>", "</seed:tool_call>", tags, "")
