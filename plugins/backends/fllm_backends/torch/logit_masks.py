"""Bit masks of the tokens that may be sampled, one for each row of logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from fllm.batching import Row

_ALL_ALLOWED = -1
"""Word of a row without a constraint."""


def stack(rows: Sequence[Row], size: int, device: torch.device) -> Tensor | None:
    """Wait for the rows' masks; return them as [rows, words] int32, or ``None`` if no row has one.

    ``size`` is the size of the vocabulary.
    """
    if all(row.mask is None for row in rows):
        return None
    masks = torch.full((len(rows), -(-size // 32)), _ALL_ALLOWED, dtype=torch.int32)
    host_masks = masks.numpy()
    for mask, row in zip(host_masks, rows, strict=True):
        if row.mask is not None:
            mask[:] = np.frombuffer(row.mask(), np.int32)
    return masks.to(device)


def apply(masks: Tensor | None, logits: Tensor) -> Tensor:
    """Return [rows, vocabulary] logits in which forbidden tokens are -infinity."""
    if masks is None:
        return logits
    bits = masks.view(torch.uint8).int()  # little-endian, as is every machine that torch runs on
    forbidden = _forbidden(masks.device)[bits].flatten(1)
    return logits.masked_fill(forbidden[:, : logits.shape[1]], -math.inf)


@cache
def _forbidden(device: torch.device) -> Tensor:
    """Return [256, 8]: which bits of a byte are 0. The table is several times as fast as computing them."""
    numbers = torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device)
    return numbers & 1 == 0
