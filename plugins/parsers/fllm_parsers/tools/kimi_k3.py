"""The tool calls of Kimi K3: elements whose tags are special tokens, and that say the types of arguments.

::

    <|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|>
    <|open|>argument key="city" type="string"<|sep|>Tokyo<|close|>argument<|sep|>
    <|close|>call<|sep|><|close|>tools<|sep|>

There are no line breaks. The answer precedes them in an element ``response``.
"""

from __future__ import annotations

from fllm.events import ParserEvent
from fllm.interfaces import ParserContext
from fllm.parsing import MarkerSplitter, TagFormat, TaggedToolCallParser, ToolFormat, tagged_arguments

OPEN, CLOSE, SEPARATOR = "<|open|>", "<|close|>", "<|sep|>"

_TYPES = ("string", "number", "boolean", "null", "array", "object")


def opened(name: str) -> str:
    """Return the tag that opens an element."""
    return f"{OPEN}{name}{SEPARATOR}"


def closed(name: str) -> str:
    """Return the tag that closes an element."""
    return f"{CLOSE}{name}{SEPARATOR}"


ANSWER_TAGS = (opened("response"), closed("response"), closed("message"))
"""Tags around the answer."""


class KimiK3Parser(TaggedToolCallParser):
    """Parses the calls, and drops the tags of the answer."""

    tags = TagFormat(
        opening=f'{OPEN}call tool="',
        after_name='"',
        before_key=f'{OPEN}argument key="',
        after_key=('"',),
        tag_end=SEPARATOR,
        special=True,
        after_value=closed("argument"),
        end=closed("call"),
        type_attributes=(
            *((type_, f' type="{type_}"') for type_ in _TYPES),
            ("integer", ' type="number"'),
        ),
    )
    opening = (tags.opening,)
    section_markers = (opened("tools"),)
    closing = (closed("tools"),)
    visible_tokens = (OPEN, CLOSE, SEPARATOR)
    # A constrained model writes the index 1 in every call.
    tool_format = ToolFormat(
        before=opened("tools"),
        begin=tags.opening,
        middle=f'" index="1"{SEPARATOR}',
        end=closed("call"),
        after=closed("tools"),
        arguments=tagged_arguments(tags),
    )

    def __init__(self, context: ParserContext) -> None:
        super().__init__(context)
        self._answer = MarkerSplitter(ANSWER_TAGS)

    def feed(self, text: str) -> list[ParserEvent]:
        """Process the next piece of output without the tags of the answer."""
        return super().feed("".join(part for part in self._answer.feed(text) if isinstance(part, str)))

    def finish(self) -> list[ParserEvent]:
        """End the output."""
        rest = "".join(part for part in self._answer.finish() if isinstance(part, str))
        return [*super().feed(rest), *super().finish()]
