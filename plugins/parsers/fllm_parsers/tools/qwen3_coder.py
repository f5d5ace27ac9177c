"""The tool calls of Qwen3-Coder, and of other models that write them with the same tags.

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

from fllm.parsing import TagFormat, TaggedToolCallParser, ToolFormat, tagged

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
        arguments=tagged(tags, gap="\n", padding=padding),
    )


class Qwen3CoderParser(TaggedToolCallParser):
    """``<tool_call>`` may be missing; a value loses the line breaks next to its tags."""

    tags: ClassVar[TagFormat] = _TAGS
    opening = ("<function=",)
    section_markers = ("<tool_call>",)
    closing = ("</tool_call>",)
    tool_format = _format("<tool_call>", "</tool_call>", _TAGS, "\n")


class MiMoParser(Qwen3CoderParser):
    """The same, but a value is what stands between its tags, word for word."""

    tags = replace(_TAGS, padding="")
    tool_format = _format("<tool_call>", "</tool_call>", tags, "")


class SeedOssParser(TaggedToolCallParser):
    """The same with tags of its own around a call, and values on the lines of their tags."""

    tags = replace(_TAGS, cut=("</function>\n</seed:tool_call>",))
    opening = ("<function=",)
    section_markers = ("<seed:tool_call>",)
    closing = ("</seed:tool_call>",)
    tool_format = _format("<seed:tool_call>", "</seed:tool_call>", tags, "")
