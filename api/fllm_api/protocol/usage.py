"""Token counts."""

from __future__ import annotations

from msgspec import Struct


class PromptTokensDetails(Struct, frozen=True):
    """What became of the prompt's tokens."""

    cached_tokens: int
    """Found in the prefix cache."""


class CompletionTokensDetails(Struct, frozen=True):
    """What the generated tokens were spent on."""

    reasoning_tokens: int


class CompletionUsage(Struct, frozen=True, kw_only=True):
    """The tokens of one request: each prompt counted once, all its answers summed."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
