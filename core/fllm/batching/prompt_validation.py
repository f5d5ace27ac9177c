"""What a prompt must be like, so that the engine can work on it."""

from __future__ import annotations

from collections.abc import Iterable

from fllm.errors import ContextTooLong, RequestError
from fllm.values import GenerateRequest, ModelCard

ANY_TOKEN = 2**31
"""Bounds the token ids where the card does not tell the size of the vocabulary."""


def check(prompt: GenerateRequest, card: ModelCard) -> None:
    """Raise `RequestError` for a prompt that this model can't continue."""
    length = len(prompt.token_ids)
    if not length:
        raise RequestError("the prompt is empty", param="prompt")
    if length >= card.max_model_len:
        raise ContextTooLong(
            f"the prompt has {length} tokens; with an answer of at least one, "
            f"this model's context holds {card.max_model_len}"
        )
    if prompt.constraint is not None and card.grammar is None:
        raise RequestError("this server can't constrain answers: it was started without a grammar backend")
    vocabulary = card.runtime.get("vocab_size", ANY_TOKEN)
    _check_ids(prompt.token_ids, vocabulary, "prompt")
    _check_ids(prompt.sampling.logit_bias, vocabulary, "logit_bias")
    _check_ids(prompt.sampling.stop_token_ids, vocabulary, "stop_token_ids")


def _check_ids(token_ids: Iterable[int], vocabulary: int, param: str) -> None:
    for token in token_ids:
        if not 0 <= token < vocabulary:
            raise RequestError(f"{param} has token id {token}; ids are 0 to {vocabulary - 1}", param=param)
