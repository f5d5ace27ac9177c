"""Sample the token of one row from its logits, as its `SamplingParams` define."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from fllm import SamplingParams, TokenLogprob
from fllm.batching import Row, stop_tokens
from fllm_numpy.gguf_file import Array


def sample(row: Row, logits: Array, eos: Collection[int]) -> int:
    """Return the row's next token."""
    adjusted = _adjust(row, logits, eos)
    return int(adjusted.argmax()) if row.sampling.temperature == 0 else _draw(row, adjusted)


def token_logprob(logits: Array, token: int, top: int) -> TokenLogprob:
    """Return a token's log-probability under the unmodified logits, and those of the ``top`` likeliest."""
    shifted = logits - logits.max()
    logprobs = shifted - np.log(np.exp(shifted).sum())
    best = np.argpartition(-logprobs, min(top, len(logprobs) - 1))[:top]
    likeliest = sorted(zip(logprobs[best].tolist(), best.tolist(), strict=True), reverse=True)
    return TokenLogprob(token, float(logprobs[token]), tuple((i, logprob) for logprob, i in likeliest))


def _adjust(row: Row, logits: Array, eos: Collection[int]) -> Array:
    """Apply min_tokens, biases, penalties and the mask. Repetition penalty includes the prompt."""
    sampling, end = row.sampling, row.start + row.count
    adjusted = logits.copy()
    if row.mask is None and end - row.prompt_length < sampling.min_tokens:
        adjusted[list(stop_tokens(sampling, eos))] = -np.inf
    adjusted[list(sampling.logit_bias)] += np.array([*sampling.logit_bias.values()], np.float32)
    if sampling.repetition_penalty != 1:
        seen = np.unique(row.token_ids[:end])
        old = adjusted[seen]
        adjusted[seen] = np.where(
            old > 0, old / sampling.repetition_penalty, old * sampling.repetition_penalty
        )
    output, counts = np.unique(row.token_ids[row.prompt_length : end], return_counts=True)
    adjusted[output.astype(int)] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    if row.mask is not None:
        adjusted[~_bits(row.mask(), len(adjusted))] = -np.inf
    return adjusted


def _bits(mask: memoryview, count: int) -> NDArray[np.bool_]:
    """Return the bits of a mask as booleans. Bit ``i`` is bit ``i % 32`` of native int32 ``i // 32``."""
    words = np.frombuffer(mask, np.int32).astype("<i4")
    return np.unpackbits(words.view(np.uint8), count=count, bitorder="little").astype(bool)


def _draw(row: Row, logits: Array) -> int:
    """Draw a token from the distribution that top_k, min_p and top_p leave.

    The cumulative distribution is in order of token ids: an order by weight would depend on rounding where
    two weights are almost equal.
    """
    weights = np.exp((logits - logits.max()) / row.sampling.temperature, dtype=np.float64)
    candidates = _candidates(weights, row.sampling)
    cumulative = weights[candidates].cumsum()
    index = np.searchsorted(cumulative, _uniform(row) * cumulative[-1], side="right")
    return int(candidates[min(index, len(candidates) - 1)])


def _candidates(weights: NDArray[np.float64], sampling: SamplingParams) -> NDArray[np.intp]:
    """Return the ids that top_k, min_p and top_p leave. The likeliest token has weight 1."""
    if sampling.top_k <= 0 and sampling.top_p >= 1:
        return np.flatnonzero(weights >= sampling.min_p)
    ranked = np.argsort(-weights, kind="stable")
    ranked = ranked[: sampling.top_k] if sampling.top_k > 0 else ranked
    ranked = ranked[weights[ranked] >= sampling.min_p]
    reached = weights[ranked].cumsum()
    return np.sort(ranked[: 1 + np.searchsorted(reached, sampling.top_p * reached[-1])])


def _uniform(row: Row) -> float:
    """Return a number in [0, 1) that depends only on the row's seed and the token's position."""
    generator = np.random.Philox(key=row.seed % 2**64, counter=row.start + row.count)
    return float(np.random.Generator(generator).random())
