"""From logits to tokens: each row by its own parameters alone, all rows in a few operations.

A row's token is that of `draw.draw`. What the rows ask for travels to the device in one copy, and the tokens
come back in one; nothing else makes the host wait. Only logits that are adjusted (penalties, biases, bans)
are so one row after the other.
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
from fllm_backends.torch.logit_processors import adjust, adjusts
from fllm_backends.torch.single_row_sampler import NUCLEUS_GUESS, draw, uniform

_UNSURE = -1
"""In place of a token for which the guess was too low."""


class _Draws(NamedTuple):
    """What some rows ask for; all but the first are [rows, 1]."""

    rows: Tensor
    """Where they lie in the batch: [rows]."""
    temperature: Tensor
    floor: Tensor
    """The logarithm of ``min_p``."""
    top_k: Tensor
    top_p: Tensor
    number: Tensor
    """The place in the cumulative distribution at which the token lies."""


def sample(
    rows: Sequence[Row], logits: Tensor, eos: Collection[int], allowed: Tensor | None = None
) -> list[int]:
    """Choose the next token of each row from [rows, vocabulary] logits, which are left as they are."""
    if any(adjusts(row, eos) for row in rows):
        logits = torch.stack([adjust(row, own, eos) for row, own in zip(rows, logits, strict=True)])
    logits = logit_masks.apply(allowed, logits)
    size = logits.shape[1]
    tokens = logits.argmax(-1)
    for width, wanted in _by_width(rows, size).items():
        draws = _describe(rows, wanted, logits)
        scaled = _scale(logits, draws)
        drawn = _draw_from_likeliest(scaled, draws, width) if width else _draw_from_all(scaled, draws)
        tokens[draws.rows] = drawn
    return [
        int(draw(logits[at], row.sampling, _number(row))) if token == _UNSURE else token
        for at, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True))
    ]


def is_plain(row: Row, eos: Collection[int]) -> bool:
    """Whether the row's token is simply the likeliest."""
    return row.sampling.temperature == 0 and not adjusts(row, eos)


def _draw_from_all(scaled: Tensor, draws: _Draws) -> Tensor:
    return _at(scaled.softmax(-1), draws.number)[:, 0]


def _draw_from_likeliest(scaled: Tensor, draws: _Draws, width: int) -> Tensor:
    """Of the ``width`` likeliest, those within top_k and top_p; `_UNSURE` where top_p may lie beyond them."""
    size = scaled.shape[1]
    best = scaled.topk(width)
    beyond = torch.arange(width, device=scaled.device) >= draws.top_k
    limited = best.values.masked_fill(beyond, -math.inf).softmax(-1)
    free = (best.values - scaled.logsumexp(-1, keepdim=True)).exp()
    is_free = draws.top_k >= size
    probabilities = torch.where(is_free, free, limited)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    dropped = cumulative - probabilities >= draws.top_p
    dropped[:, 0] = False
    tokens = best.indices.gather(1, _at(probabilities.masked_fill(dropped, 0.0), draws.number))
    unsure = is_free & (cumulative[:, -1:] < draws.top_p) & (width < size)
    return tokens.masked_fill(unsure, _UNSURE)[:, 0]


def _at(weights: Tensor, number: Tensor) -> Tensor:
    """The first index at which the cumulative weight exceeds that share of the total: [rows, 1]."""
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    index = torch.searchsorted(cumulative, cumulative[:, -1:] * number, right=True)
    return index.clamp_max(weights.shape[1] - 1)  # where float16 overflowed, all are NaN


def _scale(logits: Tensor, draws: _Draws) -> Tensor:
    own = logits[draws.rows]
    scaled = (own - own.amax(-1, keepdim=True)) / draws.temperature
    return scaled.masked_fill(scaled < draws.floor, -math.inf)


def _describe(rows: Sequence[Row], wanted: Sequence[int], logits: Tensor) -> _Draws:
    asked = [
        (
            row.sampling.temperature,
            math.log(row.sampling.min_p) if row.sampling.min_p > 0 else -math.inf,
            _top_k(row, logits.shape[1]),
            row.sampling.top_p,
            _number(row),
        )
        for row in (rows[at] for at in wanted)
    ]
    host = torch.empty((6, len(wanted)), dtype=torch.float64, pin_memory=logits.is_cuda)
    host.numpy()[:] = np.array([wanted, *zip(*asked, strict=True)])
    places, temperature, floor, top_k, top_p, number = host.to(logits.device, non_blocking=True)[:, :, None]
    return _Draws(
        places[:, 0].long(), temperature.to(logits.dtype), floor.to(logits.dtype), top_k, top_p, number
    )


def _by_width(rows: Sequence[Row], size: int) -> dict[int, list[int]]:
    """The rows that draw, by how many of the likeliest tokens they look at; 0 for all, in no order.

    That is a row's own affair: sums of another width may be rounded in another way.
    """
    found: dict[int, list[int]] = {}
    for at, row in enumerate(rows):
        if row.sampling.temperature > 0:
            top_k = _top_k(row, size)
            if row.sampling.top_p >= 1 and top_k == size:
                width = 0
            else:
                width = size if NUCLEUS_GUESS < top_k < size else min(NUCLEUS_GUESS, size)
            found.setdefault(width, []).append(at)
    return found


def _top_k(row: Row, size: int) -> int:
    """The size of the vocabulary for a row without."""
    top_k = row.sampling.top_k
    return top_k if 0 < top_k < size else size


def _number(row: Row) -> float:
    return uniform(row.seed, row.start + row.count)
