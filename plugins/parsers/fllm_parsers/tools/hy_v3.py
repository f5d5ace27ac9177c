"""The tool calls of Tencent's Hy3 and Hy4, whose tokens may have a suffix that belongs to the checkpoint.

::

    <tool_calls:opensource>
    <tool_call:opensource>get_weather<tool_sep:opensource>
    <arg_key:opensource>city</arg_key:opensource>
    <arg_value:opensource>Tokyo</arg_value:opensource>
    </tool_call:opensource>
    </tool_calls:opensource>

Hy4 writes the same without ``tool_sep`` and without line breaks.
"""

from __future__ import annotations

from fllm.parsing import TagFormat, TaggedToolCallParser, ToolFormat, tagged_arguments

_V3, _V4 = ":opensource", ":6124c78e"
_SUFFIXES = ("", _V3, _V4)
"""Suffixes of published checkpoints."""


def _marker(name: str, suffix: str) -> str:
    return f"<{name}{suffix}>"


def _tags(suffix: str, after_name: str = "") -> TagFormat:
    return TagFormat(
        opening=_marker("tool_call", suffix),
        after_name=after_name and _marker(after_name, suffix),
        before_key=_marker("arg_key", suffix),
        after_key=(_marker("/arg_key", suffix), _marker("arg_value", suffix)),
        after_value=_marker("/arg_value", suffix),
        end=_marker("/tool_call", suffix),
        typed=True,
    )


def _format(tags: TagFormat, suffix: str, gap: str) -> ToolFormat:
    return ToolFormat(
        before=_marker("tool_calls", suffix) + gap,
        begin=tags.opening,
        middle=tags.after_name + gap,
        end=tags.end + gap,
        after=_marker("/tool_calls", suffix),
        trigger=_marker("tool_calls", suffix),
        arguments=tagged_arguments(tags, gap=gap),
    )


class HyV4Parser(TaggedToolCallParser):
    """Parses tagged arguments whose values are JSON unless they are strings.

    A name without arguments is a call only if it is one of the request's tools, or the request has none.
    """

    tags = _tags(_V4)
    opening = tuple(_marker("tool_call", suffix) for suffix in _SUFFIXES)
    closing = tuple(_marker(name, suffix) for suffix in _SUFFIXES for name in ("/tool_call", "/tool_calls"))
    section_markers = tuple(_marker("tool_calls", suffix) for suffix in _SUFFIXES)
    inner_markers = tuple(
        _marker(name, suffix)
        for suffix in _SUFFIXES
        for name in ("arg_key", "/arg_key", "arg_value", "/arg_value")
    )
    tool_format = _format(tags, _V4, "")

    def tags_after(self, marker: str) -> TagFormat:
        """Return the tags with the suffix of the opening marker."""
        return _tags(marker.removeprefix("<tool_call").removesuffix(">"))

    def accepts_without_arguments(self, name: str) -> bool:
        """Return whether the request has this tool, or no tools."""
        return not self.context.tools or self.is_tool(name)


class HyV3Parser(HyV4Parser):
    """Parses calls with a separator after the name."""

    tags = _tags(_V3, "tool_sep")
    inner_markers = (*HyV4Parser.inner_markers, *(_marker("tool_sep", suffix) for suffix in _SUFFIXES))
    tool_format = _format(tags, _V3, "\n")

    def tags_after(self, marker: str) -> TagFormat:
        """Return the tags with the suffix of the opening marker."""
        return _tags(marker.removeprefix("<tool_call").removesuffix(">"), "tool_sep")
