"""From logits to tokens, each row by its own parameters alone.

The draw is the inverse of the cumulative distribution at a number that depends on nothing but the row's seed
and the token's position; so the same request gives the same tokens, whatever else runs. The order is vLLM's:
bans and biases, penalties, temperature, min_p, top_k, top_p.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from fllm.batching import Row, stop_tokens
from fllm.values import Sampling

_DRAW_BYTES = 6  # so that a draw times the total stays below the total in float64
_NUCLEUS_GUESS = 1024
"""Tokens that nearly always hold ``top_p`` of the mass; sorting them all is ten times the work."""


def sample(rows: Sequence[Row], logits: Tensor, eos: Collection[int]) -> list[int]:
    """Choose the next token of each row from [rows, vocabulary] logits, which are left as they are."""
    if all(_is_plainly_greedy(row) for row in rows):
        return logits.argmax(-1).tolist()
    return torch.stack([_choose(row, own, eos) for row, own in zip(rows, logits, strict=True)]).tolist()


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for a seed and a position."""
    digest = hashlib.blake2b(f"{seed},{position}".encode(), digest_size=_DRAW_BYTES).digest()
    return int.from_bytes(digest) / (1 << 8 * _DRAW_BYTES)


def adjust(row: Row, logits: Tensor, eos: Collection[int]) -> Tensor:
    """The logits after ``min_tokens``, ``logit_bias`` and the three penalties."""
    sampling = row.sampling
    if not _is_adjusted(row):
        return logits
    logits = logits.clone()
    if _generated(row) < sampling.min_tokens:
        logits[list(stop_tokens(sampling, eos))] = -math.inf
    if sampling.logit_bias:
        logits[list(sampling.logit_bias)] += logits.new_tensor(list(sampling.logit_bias.values()))
    _penalize(row, logits)
    return logits


def draw(logits: Tensor, sampling: Sampling, number: float) -> Tensor:
    """The token at ``number`` of the cumulative distribution."""
    scaled = (logits - logits.max()) / sampling.temperature
    if sampling.min_p > 0:
        scaled = scaled.masked_fill(scaled < math.log(sampling.min_p), -math.inf)
    if sampling.top_p >= 1 and not 0 < sampling.top_k < len(scaled):
        return _at(scaled.softmax(-1), number)
    probabilities, ids = _likeliest(scaled, sampling)
    return ids[_at(probabilities, number)]


def _choose(row: Row, logits: Tensor, eos: Collection[int]) -> Tensor:
    logits = adjust(row, logits, eos)
    if row.sampling.temperature == 0:
        return logits.argmax()
    return draw(logits, row.sampling, uniform(row.seed, row.start + row.count))


def _likeliest(scaled: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Probabilities and ids of the tokens within top_k; those beyond top_p have the probability 0."""
    if 0 < sampling.top_k < len(scaled):
        best = scaled.topk(sampling.top_k)
        return _nucleus(best.values.softmax(-1), sampling.top_p)[0], best.indices
    total = scaled.logsumexp(-1)
    best = scaled.topk(min(_NUCLEUS_GUESS, len(scaled)))
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


def _penalize(row: Row, logits: Tensor) -> None:
    """Repetition counts prompt and answer; presence and frequency the answer alone."""
    sampling, length = row.sampling, row.start + row.count
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(row.token_ids[:length], device=logits.device)
        old = logits[seen]
        penalty = sampling.repetition_penalty
        logits[seen] = torch.where(old > 0, old / penalty, old * penalty)
    if (sampling.presence_penalty or sampling.frequency_penalty) and _generated(row):
        answer = torch.tensor(row.token_ids[row.prompt_length : length], device=logits.device)
        counts = torch.bincount(answer, minlength=len(logits))
        logits -= sampling.presence_penalty * (counts > 0) + sampling.frequency_penalty * counts


def _generated(row: Row) -> int:
    return row.start + row.count - row.prompt_length


def _is_adjusted(row: Row) -> bool:
    sampling = row.sampling
    return bool(
        _generated(row) < sampling.min_tokens
        or sampling.logit_bias
        or sampling.repetition_penalty != 1
        or sampling.presence_penalty
        or sampling.frequency_penalty
    )


def _is_plainly_greedy(row: Row) -> bool:
    return row.sampling.temperature == 0 and not _is_adjusted(row)
