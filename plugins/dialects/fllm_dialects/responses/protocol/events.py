"""Events of a stream, each with its number."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from fllm_dialects.responses.protocol.items import Logprob, OutputItem, OutputText, ReasoningText
from fllm_dialects.responses.protocol.responses import Response

ResponseEventType: TypeAlias = Literal[
    "response.queued",
    "response.created",
    "response.in_progress",
    "response.completed",
    "response.incomplete",
    "response.failed",
]


class ResponseEvent(Struct, frozen=True, kw_only=True):
    """The response has a new status: the first events of a stream, and the last one."""

    type: ResponseEventType
    sequence_number: int
    response: Response


class OutputItemEvent(Struct, frozen=True, kw_only=True):
    """An item begins or is complete."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: int
    item: OutputItem


class ContentPartEvent(Struct, frozen=True, kw_only=True):
    """A part of a message or of the reasoning begins or is complete."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    part: OutputText | ReasoningText


class TextDelta(Struct, frozen=True, kw_only=True):
    """A piece of a message."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[Logprob]


class TextDone(Struct, frozen=True, kw_only=True):
    """The whole text of a message."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[Logprob]


class ReasoningDelta(Struct, frozen=True, kw_only=True):
    """A piece of the reasoning."""

    type: Literal["response.reasoning_text.delta"] = "response.reasoning_text.delta"
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str


class ReasoningDone(Struct, frozen=True, kw_only=True):
    """The whole reasoning of an item."""

    type: Literal["response.reasoning_text.done"] = "response.reasoning_text.done"
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    text: str


class CallDelta(Struct, frozen=True, kw_only=True):
    """A piece of the arguments of a function, or of the input of a custom tool."""

    type: Literal["response.function_call_arguments.delta", "response.custom_tool_call_input.delta"]
    sequence_number: int
    item_id: str
    output_index: int
    delta: str


class ArgumentsDone(Struct, frozen=True, kw_only=True):
    """The whole arguments of a function call."""

    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    sequence_number: int
    item_id: str
    output_index: int
    name: str
    arguments: str


class CustomInputDone(Struct, frozen=True, kw_only=True):
    """The whole input of the call of a custom tool."""

    type: Literal["response.custom_tool_call_input.done"] = "response.custom_tool_call_input.done"
    sequence_number: int
    item_id: str
    output_index: int
    input: str


class ErrorEvent(Struct, frozen=True, kw_only=True):
    """An error after the stream has begun. The next event, the last one, is ``response.failed``."""

    type: Literal["error"] = "error"
    sequence_number: int
    code: str | None
    message: str
    param: str | None


StreamEvent: TypeAlias = (
    ResponseEvent
    | OutputItemEvent
    | ContentPartEvent
    | TextDelta
    | TextDone
    | ReasoningDelta
    | ReasoningDone
    | CallDelta
    | ArgumentsDone
    | CustomInputDone
    | ErrorEvent
)
