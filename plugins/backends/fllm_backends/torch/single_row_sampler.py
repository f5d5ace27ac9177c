"""One row's draw: the inverse of the cumulative distribution at a number.

The number depends on nothing but the row's seed and the token's position; so the same request gives the same
tokens, whatever else runs. The order is vLLM's: temperature, min_p, top_k, top_p.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from fllm.values import SamplingParams

NUCLEUS_GUESS = 1024
"""Tokens that nearly always hold ``top_p`` of the mass; sorting them all is ten times the work."""

_DRAW_BYTES = 6  # so that a draw times the total stays below the total in float64


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for a seed and a position."""
    digest = hashlib.blake2b(f"{seed},{position}".encode(), digest_size=_DRAW_BYTES).digest()
    return int.from_bytes(digest) / (1 << 8 * _DRAW_BYTES)


def draw(logits: Tensor, sampling: SamplingParams, number: float) -> Tensor:
    """The token at ``number`` of the cumulative distribution."""
    scaled = (logits - logits.max()) / sampling.temperature
    if sampling.min_p > 0:
        scaled = scaled.masked_fill(scaled < math.log(sampling.min_p), -math.inf)
    if sampling.top_p >= 1 and not 0 < sampling.top_k < len(scaled):
        return _at(scaled.softmax(-1), number)
    probabilities, ids = _likeliest(scaled, sampling)
    return ids[_at(probabilities, number)]


def _likeliest(scaled: Tensor, sampling: SamplingParams) -> tuple[Tensor, Tensor]:
    """Probabilities and ids of the tokens within top_k; those beyond top_p have the probability 0."""
    if 0 < sampling.top_k < len(scaled):
        best = scaled.topk(sampling.top_k)
        return _nucleus(best.values.softmax(-1), sampling.top_p)[0], best.indices
    total = scaled.logsumexp(-1)
    best = scaled.topk(min(NUCLEUS_GUESS, len(scaled)))
    probabilities, mass = _nucleus((best.values - total).exp(), sampling.top_p)
    if mass < sampling.top_p:
        best = scaled.topk(len(scaled))
        probabilities, mass = _nucleus((best.values - total).exp(), sampling.top_p)
    return probabilities, best.indices


def _nucleus(probabilities: Tensor, top_p: float) -> tuple[Tensor, float]:
    """Keep the fewest of the sorted probabilities that reach ``top_p``; also the sum of all of them."""
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    dropped = cumulative - probabilities >= top_p
    dropped[0] = False
    return probabilities.masked_fill(dropped, 0.0), cumulative[-1].item()


def _at(weights: Tensor, number: float) -> Tensor:
    """The first index at which the cumulative weight exceeds that share of the total."""
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    index = torch.searchsorted(cumulative, cumulative[-1:] * number, right=True)[0]
    return index.clamp_max(len(weights) - 1)  # where float16 overflowed, all are NaN
