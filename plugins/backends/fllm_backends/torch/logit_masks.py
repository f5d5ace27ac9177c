"""Which tokens may be sampled: bit masks on the device, one row for each row of logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from fllm.batching import Row

EVERYTHING = -1
"""A word of a row that is not constrained."""


def gather(rows: Sequence[Row], size: int, device: torch.device) -> Tensor | None:
    """[rows, words] int32, waited for; ``None`` where no row is constrained. ``size``: of the vocabulary."""
    if all(row.mask is None for row in rows):
        return None
    masks = torch.full((len(rows), -(-size // 32)), EVERYTHING, dtype=torch.int32)
    host = masks.numpy()
    for own, row in zip(host, rows, strict=True):
        if row.mask is not None:
            own[:] = np.frombuffer(row.mask(), np.int32)
    return masks.to(device)


def apply(masks: Tensor | None, logits: Tensor) -> Tensor:
    """[rows, vocabulary] logits, in which what may not be sampled is impossible."""
    if masks is None:
        return logits
    bits = masks.view(torch.uint8).int()  # little-endian, as is every machine that torch runs on
    forbidden = _forbidden(masks.device)[bits].flatten(1)
    return logits.masked_fill(forbidden[:, : logits.shape[1]], -math.inf)


@cache
def _forbidden(device: torch.device) -> Tensor:
    """[256, 8]: the bits that a byte lacks. To look them up is several times as fast as to compute them."""
    numbers = torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device)
    return numbers & 1 == 0
