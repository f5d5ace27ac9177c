"""`/v1/completions`."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from fllm_api.protocol.generation import GenerationRequest, TokenId, TopLogprobs
from fllm_api.protocol.usage import CompletionUsage


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """Text to go on with."""

    prompt: str | list[str | TokenId | list[TokenId]]
    """A text, several texts, token ids, or several lists of token ids."""
    logprobs: TopLogprobs | None = None
    echo: bool | None = None
    """The answer begins with the prompt."""
    suffix: Any = None


class CompletionLogprobs(Struct, frozen=True):
    """Four lists of the same length, one entry for each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """``null`` for the first token of an echoed prompt."""
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    """Where the token begins, counted from the start of the answer's text."""


class CompletionChoice(Struct, frozen=True, kw_only=True):
    """One answer, or what is new in it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | None


class Completion(Struct, frozen=True, kw_only=True):
    """The whole answer to a completion request."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    """Unix time in seconds."""
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage


class CompletionChunk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a stream; ``usage`` is there only where it was asked for."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None
