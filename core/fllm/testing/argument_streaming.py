"""How early a tool-call parser emits a call with a long argument."""

from __future__ import annotations

import json
import re
from itertools import pairwise

from msgspec import Struct

from fllm.constraints import AnyOf, Concat, Constraint, ConstString, JsonSchema, Regex, Repeat, TextUntil
from fllm.events import ToolArguments, ToolStart
from fllm.interfaces import ParserContext, ParserFactory
from fllm.structured_output.tool_format import ToolFormat
from fllm.values import Tool

LONG = "x" * 3000
"""The argument."""
WRITE_FILE = Tool(
    "write_file",
    parameters={
        "type": "object",
        "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
        "required": ["path", "content"],
    },
)
"""The tool that is called."""


class ArgumentStreaming(Struct, frozen=True):
    """When a parser emitted the events of one call, of which it received a character at a time."""

    first_event: float
    """Part of the text that was read between the name of the tool and the start of the call, from 0 to 1."""
    longest_silence: int
    """Maximum number of characters between two events of the call."""


def measure_streaming(parser: ParserFactory, text: str) -> ArgumentStreaming:
    """Return when a parser emits the events of the only call in ``text``, which calls `WRITE_FILE`.

    Raise `AssertionError` if it emits no call.
    """
    made = parser(ParserContext(tools=(WRITE_FILE,)))
    positions = [
        position
        for position, char in enumerate(text, start=1)
        if any(isinstance(event, ToolStart | ToolArguments) for event in made.feed(char))
    ]
    positions += [len(text)] * any(isinstance(event, ToolStart | ToolArguments) for event in made.finish())
    assert positions, f"no call was found in {text[:100]!r}..."
    silences = [after - before for before, after in pairwise(positions)]
    # Markers before the name can be long, and no call can start before its name.
    name_end = max(text.find(WRITE_FILE.name, 0, positions[0]), 0)
    return ArgumentStreaming((positions[0] - name_end) / len(text), max([0, *silences]))


def write_calls(tool_format: ToolFormat, content: str = LONG, count: int = 1) -> str:
    """Return ``count`` calls of `WRITE_FILE` with this content, in the format of a parser.

    The content must need no escape in any format.
    """
    before, after = tool_format.before, tool_format.after
    call = _written(tool_format.calls([WRITE_FILE]), content)[len(before) :]
    call = call[: len(call) - len(after)]
    return before + tool_format.between.join([call] * count) + after


def _written(constraint: Constraint, content: str) -> str:
    """Return a text that the constraint allows, with ``content`` wherever a string may be."""
    match constraint:
        case ConstString(text=text):
            return text
        case Concat(parts=parts):
            return "".join(_written(part, content) for part in parts)
        case AnyOf(options=options):
            return max((_written(option, content) for option in options), key=len)
        case Repeat(item=item):
            return _written(item, content)
        case TextUntil(end=end):
            return content + end
        case JsonSchema(schema=schema):
            is_object = json.loads(schema).get("type") == "object"
            return json.dumps({"path": "notes.txt", "content": content} if is_object else content)
        case Regex(pattern=pattern):
            candidates = (content, f'"{content}"', f"'{content}'", "path")
            return next((each for each in candidates if re.fullmatch(pattern, each)), "")
        case _:
            return content
