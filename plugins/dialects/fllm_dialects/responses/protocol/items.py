"""Items of a conversation: the input of a request and the output of a response."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class InputPart(Struct, frozen=True, kw_only=True):
    """A part of an item's content; the fields that it has depend on its type."""

    type: str
    """Such as ``input_text``, ``output_text``, ``refusal``, ``input_image`` or ``reasoning_text``."""
    text: str | UnsetType | None = UNSET
    refusal: str | UnsetType | None = UNSET
    image_url: str | UnsetType | None = UNSET
    detail: Literal["auto", "low", "high", "original"] | UnsetType | None = UNSET
    file_id: str | UnsetType | None = UNSET
    annotations: list[Any] | UnsetType | None = UNSET
    logprobs: list[Any] | UnsetType | None = UNSET


class InputItem(Struct, frozen=True, kw_only=True):
    """An item of the input; the fields that it has depend on its type."""

    type: str | None = "message"
    """Clients may leave out ``message``, and ``item_reference`` of an item that has only an id."""
    id: str | UnsetType | None = UNSET
    status: str | UnsetType | None = UNSET
    role: str | UnsetType | None = UNSET
    content: str | list[InputPart] | UnsetType | None = UNSET
    phase: str | UnsetType | None = UNSET
    call_id: str | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET
    namespace: str | UnsetType | None = UNSET
    arguments: str | UnsetType | None = UNSET
    """JSON text of a function call."""
    input: str | UnsetType | None = UNSET
    """Free text of the call of a custom tool."""
    output: str | list[InputPart] | UnsetType | None = UNSET
    """Result of a call."""
    summary: list[InputPart] | UnsetType | None = UNSET
    encrypted_content: str | UnsetType | None = UNSET


class TopLogprob(Struct, frozen=True):
    """An alternative token at one position."""

    token: str
    logprob: float
    bytes: list[int]


class Logprob(Struct, frozen=True):
    """A generated token, and the most likely tokens at its position."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class OutputText(Struct, frozen=True, kw_only=True, tag="output_text"):
    """Text of a generated message."""

    text: str
    annotations: tuple[()] = ()
    """Always empty: annotations cite what hosted tools find."""
    logprobs: list[Logprob] = []
    """With ``include``: ``message.output_text.logprobs``."""


class ReasoningText(Struct, frozen=True, tag="reasoning_text"):
    """The reasoning as the model wrote it."""

    text: str


class OutputMessage(Struct, frozen=True, kw_only=True, tag="message"):
    """A generated message."""

    id: str
    status: ItemStatus
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class ReasoningItem(Struct, frozen=True, kw_only=True, tag="reasoning"):
    """The reasoning before a message or a call."""

    id: str
    status: ItemStatus
    summary: tuple[()] = ()
    """Always empty: nothing writes summaries."""
    content: list[ReasoningText]
    encrypted_content: None = None
    """Always null: ``content`` has the reasoning as it is."""


class FunctionCallItem(Struct, frozen=True, kw_only=True, tag="function_call"):
    """A generated call of a function."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    """Present if the function was declared in a namespace."""
    arguments: str
    """JSON text."""


class CustomToolCallItem(Struct, frozen=True, kw_only=True, tag="custom_tool_call"):
    """A generated call of a custom tool."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    input: str


OutputItem: TypeAlias = OutputMessage | ReasoningItem | FunctionCallItem | CustomToolCallItem
