"""Draw the token of one row by inverting its cumulative distribution.

The quantile depends only on the row's seed and the token's position, so the same request gives the same
tokens regardless of other requests. The order is vLLM's: temperature, min_p, top_k, top_p.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from fllm.values import SamplingParams

TOP_P_CANDIDATES = 1024
"""Number of most likely tokens that nearly always hold ``top_p`` of the mass.

Sorting all takes ten times as long.
"""

_DRAW_BYTES = 6  # so that the quantile times the total stays below the total in float64


def seeded_uniform(seed: int, position: int) -> float:
    """Return a number in [0, 1) that depends on a seed and a position."""
    digest = hashlib.blake2b(f"{seed},{position}".encode(), digest_size=_DRAW_BYTES).digest()
    return int.from_bytes(digest) / (1 << 8 * _DRAW_BYTES)


def draw_token(logits: Tensor, sampling: SamplingParams, quantile: float) -> Tensor:
    """Return the token at ``quantile`` of the cumulative distribution of [vocabulary] logits."""
    scaled = (logits - logits.max()) / sampling.temperature
    if sampling.min_p > 0:
        scaled = scaled.masked_fill(scaled < math.log(sampling.min_p), -math.inf)
    if sampling.top_p >= 1 and not 0 < sampling.top_k < len(scaled):
        return _inverse_cdf(scaled.softmax(-1), quantile)
    probabilities, ids = _candidates(scaled, sampling)
    return ids[_inverse_cdf(probabilities, quantile)]


def _candidates(scaled: Tensor, sampling: SamplingParams) -> tuple[Tensor, Tensor]:
    """Return probabilities and ids of the tokens within top_k; tokens beyond top_p have the probability 0."""
    if 0 < sampling.top_k < len(scaled):
        best = scaled.topk(sampling.top_k)
        return _mask_beyond_top_p(best.values.softmax(-1), sampling.top_p)[0], best.indices
    total = scaled.logsumexp(-1)
    best = scaled.topk(min(TOP_P_CANDIDATES, len(scaled)))
    probabilities, mass = _mask_beyond_top_p((best.values - total).exp(), sampling.top_p)
    if mass < sampling.top_p:
        best = scaled.topk(len(scaled))
        probabilities, mass = _mask_beyond_top_p((best.values - total).exp(), sampling.top_p)
    return probabilities, best.indices


def _mask_beyond_top_p(probabilities: Tensor, top_p: float) -> tuple[Tensor, float]:
    """Zero all but the fewest of the sorted probabilities that reach ``top_p``.

    Return their original sum, too.
    """
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    dropped = cumulative - probabilities >= top_p
    dropped[0] = False
    return probabilities.masked_fill(dropped, 0.0), cumulative[-1].item()


def _inverse_cdf(weights: Tensor, quantile: float) -> Tensor:
    """Return the first index at which the cumulative weight exceeds ``quantile`` of the total."""
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    index = torch.searchsorted(cumulative, cumulative[-1:] * quantile, right=True)[0]
    return index.clamp_max(len(weights) - 1)  # where float16 overflowed, all are NaN
