"""Response and stream chunk of `/v1/chat/completions`."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from fllm_api.protocol.token_details import PromptLogprobs
from fllm_api.protocol.usage import CompletionUsage


class ResponseFunctionCall(Struct, frozen=True):
    """Function name of a generated call, and its arguments as JSON text."""

    name: str
    arguments: str


class ResponseToolCall(Struct, frozen=True):
    """A tool call that the model generated."""

    id: str
    function: ResponseFunctionCall
    type: Literal["function"] = "function"


class ResponseMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The generated message. Keys without a value are absent, except ``content``."""

    role: str
    content: str | None
    reasoning_content: str | None = None
    """The reasoning. ``--reasoning-field`` selects this field, `reasoning`, or both."""
    reasoning: str | None = None
    tool_calls: list[ResponseToolCall] | None = None


class TopLogprob(Struct, frozen=True):
    """An alternative token at one position."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobs(Struct, frozen=True):
    """A generated token, and the most likely tokens at its position."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct, frozen=True):
    """Log-probabilities of a choice, one entry per token."""

    content: list[TokenLogprobs]


class ChatChoice(Struct, frozen=True, kw_only=True):
    """One choice of a chat completion."""

    index: int
    message: ResponseMessage
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | None
    token_ids: list[int] | UnsetType = UNSET
    """With ``return_token_ids``."""


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """Response to a chat request that is not streamed."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """Unix time in seconds."""
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    prompt_token_ids: list[int] | UnsetType = UNSET
    """With ``return_token_ids``."""
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET
    """With ``prompt_logprobs``."""


class FunctionDelta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of a function call: first its ``name``, then pieces of its arguments."""

    name: str | None = None
    arguments: str


class ToolCallDelta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The start of a call (``id``, ``type`` and function name), or a piece of its arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """New content of a message. Keys without a value are absent."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(Struct, frozen=True, kw_only=True):
    """New content of one choice. ``stop_reason`` is present only in the last chunk of the choice."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | UnsetType | None = UNSET
    token_ids: list[int] | UnsetType = UNSET
    """With ``return_token_ids``: the tokens since the previous chunk of the choice."""


class ChatCompletionChunk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a chat stream. ``usage`` is present only if ``stream_options`` requests it."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    prompt_token_ids: list[int] | UnsetType = UNSET
    """In the first chunk, with ``return_token_ids``."""
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET
    """In the first chunk, with ``prompt_logprobs``."""
