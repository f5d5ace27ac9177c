"""Everything that the author of a parser needs: bases, scanners, markers and formats of tool calls."""

from fllm.parsing.argument_constraints import tagged
from fllm.parsing.json_objects import JsonObject, ObjectFinder, read_object
from fllm.parsing.json_scanner import JsonScanner
from fllm.parsing.json_tool_calls import (
    JsonToolCallParser,
    JsonWithHeader,
    call_from_json,
    json_list,
    make_call,
    split_header,
)
from fllm.parsing.markers import Marker, MarkerSplitter
from fllm.parsing.partial_match import longest_overlap, overlap
from fllm.parsing.reasoning_parser import SPACE, ReasoningParserBase, Space
from fllm.parsing.tag_reader import TagFormat
from fllm.parsing.tagged_tool_calls import TaggedToolCallParser
from fllm.parsing.tool_call_parser import BodyScanner, Call, ToolCallParser
from fllm.structured_output.tool_format import ToolFormat, json_arguments

__all__ = [
    "SPACE",
    "BodyScanner",
    "Call",
    "JsonObject",
    "JsonScanner",
    "JsonToolCallParser",
    "JsonWithHeader",
    "Marker",
    "MarkerSplitter",
    "ObjectFinder",
    "ReasoningParserBase",
    "Space",
    "TagFormat",
    "TaggedToolCallParser",
    "ToolCallParser",
    "ToolFormat",
    "call_from_json",
    "json_arguments",
    "json_list",
    "longest_overlap",
    "make_call",
    "overlap",
    "read_object",
    "split_header",
    "tagged",
]
