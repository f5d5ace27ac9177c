"""The response object."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from fllm_dialects.responses.protocol.items import OutputItem
from fllm_dialects.responses.protocol.requests import (
    ConversationRef,
    Metadata,
    ReasoningParam,
    TextOptions,
)
from fllm_dialects.responses.protocol.tools import ToolChoice, ToolParam

ResponseStatus: TypeAlias = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


class InputTokensDetails(Struct, frozen=True):
    """Of the tokens of the input."""

    cached_tokens: int
    """Tokens that the prefix cache had."""
    cache_write_tokens: int = 0
    """Always 0: the prefix cache is not written on request."""


class OutputTokensDetails(Struct, frozen=True):
    """Of the tokens of the output."""

    reasoning_tokens: int


class ResponseUsage(Struct, frozen=True, kw_only=True):
    """Token counts of a response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(Struct, frozen=True):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(Struct, frozen=True):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens", "content_filter"]


class Response(Struct, frozen=True, kw_only=True):
    """A response: complete, or as far as it is."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    """Unix time in seconds."""
    status: ResponseStatus
    background: bool = False
    completed_at: int | None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: Metadata = {}
    model: str
    output: list[OutputItem] = []
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    conversation: ConversationRef | UnsetType | None = UNSET
    prompt_cache_key: str | None = None
    reasoning: ReasoningParam = ReasoningParam()
    safety_identifier: str | None = None
    service_tier: str = "default"
    store: bool = False
    temperature: float
    text: TextOptions
    tool_choice: ToolChoice = "auto"
    tools: list[ToolParam] = []
    """The tools that the model may call."""
    top_logprobs: int = 0
    top_p: float
    truncation: Literal["auto", "disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None


class InputTokens(Struct, frozen=True):
    """Response of `POST /v1/responses/input_tokens`."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"
