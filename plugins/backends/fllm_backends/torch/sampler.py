"""Sample the next tokens of a batch from its logits.

Each row gets the token that `single_row_sampler.draw_token` gives it, but all rows are computed in a few
operations. The parameters travel to the device in one copy and the tokens return in one; nothing else makes
the host wait. Only logit processors (penalties, biases, bans) run row by row.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fllm.batching import Row
from fllm_backends.torch import logit_masks
from fllm_backends.torch.logit_processors import changes_logits, process_logits
from fllm_backends.torch.single_row_sampler import TOP_P_CANDIDATES, draw_token, seeded_uniform

_UNDECIDED = -1
"""Result for a row whose top_p needs more candidates than were considered."""


class _DrawParameters(NamedTuple):
    """The sampling parameters of some rows; all but the first are [rows, 1]."""

    rows: Tensor
    """Indices of the rows in the batch: [rows]."""
    temperature: Tensor
    log_min_p: Tensor
    """Logarithm of ``min_p``."""
    top_k: Tensor
    top_p: Tensor
    quantile: Tensor
    """Place in the cumulative distribution that selects the token, in [0, 1)."""


def sample(
    rows: Sequence[Row], logits: Tensor, eos: Collection[int], allowed: Tensor | None = None
) -> list[int]:
    """Choose the next token of each row of [rows, vocabulary] logits, which are not modified."""
    return draw(rows, process_all(rows, logits, eos), allowed)


def process_all(rows: Sequence[Row], logits: Tensor, eos: Collection[int]) -> Tensor:
    """Return [rows, vocabulary] logits after penalties, biases and bans."""
    if not any(changes_logits(row, eos) for row in rows):
        return logits
    return torch.stack([process_logits(row, scores, eos) for row, scores in zip(rows, logits, strict=True)])


def draw(rows: Sequence[Row], logits: Tensor, allowed: Tensor | None = None) -> list[int]:
    """Choose the next token of each row of processed logits."""
    logits = logit_masks.apply(allowed, logits)
    size = logits.shape[1]
    tokens = logits.argmax(-1)
    for candidates, indices in _group_by_candidates(rows, size).items():
        draws = _draw_parameters(rows, indices, logits)
        scaled = _scale(logits, draws)
        drawn = (
            _draw_from_candidates(scaled, draws, candidates) if candidates else _draw_from_all(scaled, draws)
        )
        tokens[draws.rows] = drawn
    return [
        int(draw_token(logits[at], row.sampling, draw_quantile(row))) if token == _UNDECIDED else token
        for at, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True))
    ]


def is_greedy(row: Row, eos: Collection[int]) -> bool:
    """Return whether the row takes its most likely token, with unprocessed logits."""
    return row.sampling.temperature == 0 and not changes_logits(row, eos)


def _draw_from_all(scaled: Tensor, draws: _DrawParameters) -> Tensor:
    return _inverse_cdf(scaled.softmax(-1), draws.quantile)[:, 0]


def _draw_from_candidates(scaled: Tensor, draws: _DrawParameters, candidates: int) -> Tensor:
    """Draw from the most likely tokens within top_k and top_p.

    The result is `_UNDECIDED` if top_p may need more than ``candidates`` tokens.
    """
    size = scaled.shape[1]
    best = scaled.topk(candidates)
    beyond_top_k = torch.arange(candidates, device=scaled.device) >= draws.top_k
    limited = best.values.masked_fill(beyond_top_k, -math.inf).softmax(-1)
    unlimited = (best.values - scaled.logsumexp(-1, keepdim=True)).exp()
    is_unlimited = draws.top_k >= size
    probabilities = torch.where(is_unlimited, unlimited, limited)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    dropped = cumulative - probabilities >= draws.top_p
    dropped[:, 0] = False
    tokens = best.indices.gather(1, _inverse_cdf(probabilities.masked_fill(dropped, 0.0), draws.quantile))
    undecided = is_unlimited & (cumulative[:, -1:] < draws.top_p) & (candidates < size)
    return tokens.masked_fill(undecided, _UNDECIDED)[:, 0]


def _inverse_cdf(weights: Tensor, quantile: Tensor) -> Tensor:
    """Return the first index at which the cumulative weight exceeds ``quantile`` of the total: [rows, 1]."""
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    index = torch.searchsorted(cumulative, cumulative[:, -1:] * quantile, right=True)
    return index.clamp_max(weights.shape[1] - 1)  # where float16 overflowed, all are NaN


def _scale(logits: Tensor, draws: _DrawParameters) -> Tensor:
    scores = logits[draws.rows]
    scaled = (scores - scores.amax(-1, keepdim=True)) / draws.temperature
    return scaled.masked_fill(scaled < draws.log_min_p, -math.inf)


def _draw_parameters(rows: Sequence[Row], indices: Sequence[int], logits: Tensor) -> _DrawParameters:
    parameters = [
        (
            row.sampling.temperature,
            math.log(row.sampling.min_p) if row.sampling.min_p > 0 else -math.inf,
            _top_k(row, logits.shape[1]),
            row.sampling.top_p,
            draw_quantile(row),
        )
        for row in (rows[at] for at in indices)
    ]
    host = torch.empty((6, len(indices)), dtype=torch.float64, pin_memory=logits.is_cuda)
    host.numpy()[:] = np.array([indices, *zip(*parameters, strict=True)])
    places, temperature, log_min_p, top_k, top_p, quantile = host.to(logits.device, non_blocking=True)[
        :, :, None
    ]
    return _DrawParameters(
        places[:, 0].long(), temperature.to(logits.dtype), log_min_p.to(logits.dtype), top_k, top_p, quantile
    )


def _group_by_candidates(rows: Sequence[Row], size: int) -> dict[int, list[int]]:
    """Group the rows that draw by the number of most likely tokens they consider; 0 means all, unsorted.

    The number depends on the row alone, because sums over another number of tokens may be rounded
    differently.
    """
    groups: dict[int, list[int]] = {}
    for at, row in enumerate(rows):
        if row.sampling.temperature > 0:
            top_k = _top_k(row, size)
            if row.sampling.top_p >= 1 and top_k == size:
                candidates = 0
            else:
                candidates = size if TOP_P_CANDIDATES < top_k < size else min(TOP_P_CANDIDATES, size)
            groups.setdefault(candidates, []).append(at)
    return groups


def _top_k(row: Row, size: int) -> int:
    """Return the row's top_k, or the size of the vocabulary if it has none."""
    top_k = row.sampling.top_k
    return top_k if 0 < top_k < size else size


def draw_quantile(row: Row) -> float:
    """Return the place in the cumulative distribution that selects the row's token, in [0, 1)."""
    return seeded_uniform(row.seed, row.start + row.count)
