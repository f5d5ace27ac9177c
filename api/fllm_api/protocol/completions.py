"""Response and stream chunk of `/v1/completions`."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from fllm_api.protocol.token_details import PromptLogprobs
from fllm_api.protocol.usage import CompletionUsage


class CompletionLogprobs(Struct, frozen=True):
    """Four lists of the same length, with one entry per token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """``null`` for the first token of an echoed prompt."""
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    """Index of the token's first character in the text of the choice."""


class CompletionChoice(Struct, frozen=True, kw_only=True):
    """One choice of a completion, or its new content."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | None
    token_ids: list[int] | UnsetType = UNSET
    """With ``return_token_ids``; in a stream, the tokens since the previous chunk of the choice."""
    prompt_token_ids: list[int] | UnsetType = UNSET
    """With ``return_token_ids``; in a stream, in the first chunk of the choice."""
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET
    """With ``prompt_logprobs``; in a stream, in the first chunk of the choice."""


class Completion(Struct, frozen=True, kw_only=True):
    """Response to a completion request that is not streamed."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    """Unix time in seconds."""
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage


class CompletionChunk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a stream. ``usage`` is present only if ``stream_options`` requests it."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None
