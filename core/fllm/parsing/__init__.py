"""The public API for authors of parsers: base classes, scanners, markers and formats of tool calls."""

from fllm.parsing.argument_constraints import tagged_arguments
from fllm.parsing.body_scanner import BodyScanner
from fllm.parsing.json_objects import JsonObject, ObjectFinder
from fllm.parsing.json_scanner import JsonScanner
from fllm.parsing.json_tool_calls import (
    CallHead,
    HeaderToolCallParser,
    JsonArguments,
    JsonCallReader,
    JsonToolCallParser,
    JsonWithHeaderScanner,
    call_from_json,
    json_list,
    make_call,
)
from fllm.parsing.literal_tool_calls import LiteralToolCallParser
from fllm.parsing.markers import Marker, MarkerSplitter
from fllm.parsing.partial_match import longest_overlap, overlap
from fllm.parsing.reasoning_parser import SPACE, ReasoningParserBase, Space
from fllm.parsing.sample import ParserSample, read_samples
from fllm.parsing.tag_scanner import TagFormat, TaggedBodyScanner
from fllm.parsing.tagged_tool_calls import TaggedToolCallParser
from fllm.parsing.text_patterns import WORD, TextPattern
from fllm.parsing.tool_call_parser import Call, ToolCallParser
from fllm.structured_output.tool_format import ToolFormat, json_arguments

__all__ = [
    "SPACE",
    "WORD",
    "BodyScanner",
    "Call",
    "CallHead",
    "HeaderToolCallParser",
    "JsonArguments",
    "JsonCallReader",
    "JsonObject",
    "JsonScanner",
    "JsonToolCallParser",
    "JsonWithHeaderScanner",
    "LiteralToolCallParser",
    "Marker",
    "MarkerSplitter",
    "ObjectFinder",
    "ParserSample",
    "ReasoningParserBase",
    "Space",
    "TagFormat",
    "TaggedBodyScanner",
    "TaggedToolCallParser",
    "TextPattern",
    "ToolCallParser",
    "ToolFormat",
    "call_from_json",
    "json_arguments",
    "json_list",
    "longest_overlap",
    "make_call",
    "overlap",
    "read_samples",
    "tagged_arguments",
]
