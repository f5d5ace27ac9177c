"""Token counts of a request, in OpenAI's form."""

from __future__ import annotations

from msgspec import Struct


class PromptTokensDetails(Struct, frozen=True):
    """Breakdown of the prompt tokens."""

    cached_tokens: int
    """Number of prompt tokens found in the prefix cache."""


class CompletionTokensDetails(Struct, frozen=True):
    """Breakdown of the generated tokens."""

    reasoning_tokens: int


class CompletionUsage(Struct, frozen=True, kw_only=True):
    """Token counts of one request. Each prompt is counted once, and all its choices are summed."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
