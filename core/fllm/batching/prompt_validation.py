"""Validation of a request against the model card, before it reaches the engine."""

from __future__ import annotations

from collections.abc import Iterable

from fllm.errors import ContextTooLong, RequestError
from fllm.values import GenerateRequest, ModelCard

MAX_VOCAB_SIZE = 2**31
"""Bound of token ids if the card does not contain the size of the vocabulary."""


def check_request(request: GenerateRequest, card: ModelCard) -> None:
    """Raise `RequestError` if the model cannot process the request."""
    if not request.token_ids:
        raise RequestError("the prompt is empty", param="prompt")
    length = len(request.token_ids) + len(request.generated)
    if length >= card.max_model_len:
        raise ContextTooLong.for_prompt(
            card.max_model_len, f"the prompt has {length} tokens, which leaves no room for output"
        )
    if request.constraint is not None and card.grammar is None:
        raise RequestError(
            "this server can't constrain its output: it was started without a grammar backend "
            "(--grammar-backend)"
        )
    vocab_size = card.runtime.get("vocab_size", MAX_VOCAB_SIZE)
    _check_ids(request.token_ids, vocab_size, "prompt")
    _check_ids(request.generated, vocab_size, "prompt")
    _check_ids(request.sampling.logit_bias, vocab_size, "logit_bias")
    _check_ids(request.sampling.stop_token_ids, vocab_size, "stop_token_ids")
    _check_ids(request.sampling.allowed_token_ids, vocab_size, "allowed_token_ids")
    for word in request.sampling.bad_words_token_ids:
        _check_ids(word, vocab_size, "bad_words")


def _check_ids(token_ids: Iterable[int], vocab_size: int, param: str) -> None:
    for token in token_ids:
        if not 0 <= token < vocab_size:
            raise RequestError(f"{param} has token id {token}; ids are 0 to {vocab_size - 1}", param=param)
