"""Log-probabilities of prompt tokens, in vLLM's form."""

from __future__ import annotations

from msgspec import Struct


class PromptTokenLogprob(Struct, frozen=True):
    """A token of the prompt, or one of the most likely tokens at its position."""

    logprob: float
    rank: int | None
    """1 for the most likely token; ``null`` if the backend does not report it."""
    decoded_token: str


PromptLogprobs = list[dict[int, PromptTokenLogprob] | None]
"""One entry per token of the prompt, by token id; ``null`` for the first token."""
