"""A completion: a text to continue, and how. It is the body of `/v1/completions`."""

from __future__ import annotations

from fllm.requests.generation import GenerationRequest, TokenId, TopLogprobs


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """Body of a completion request."""

    prompt: str | list[str | TokenId | list[TokenId]]
    """A string, a list of strings, a list of token ids, or a list of lists of token ids."""
    logprobs: TopLogprobs | None = None
    echo: bool | None = None
    """Start the output with the prompt."""
    suffix: str | None = None
    """Text after the output, for a model that fills in the middle."""
