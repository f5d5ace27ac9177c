"""RMSNorm, and the rounding of what comes out of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fllm_backends.torch.fused import tiles
from fllm_backends.torch.fused.compiled import kernel
from fllm_backends.torch.fused.intrinsics import address
from fllm_backends.torch.fused.products import FINE
from fllm_backends.torch.fused.target import TARGET

round_fine = tiles.round_groups(TARGET, FINE)

single = np.float32


@kernel()
def normalize(x: Any, weight: Any, eps: Any, out: Any) -> None:
    """RMSNorm of one row."""
    total = single(0)
    for i in range(len(x)):
        total += x[i] * x[i]
    scale = single(1) / math.sqrt(total / single(len(x)) + eps)
    for i in range(len(x)):
        out[i] = x[i] * scale * weight[i]


@kernel(fast=False)
def normalize_rows(
    x: Any, weight: Any, eps: Any, room: Any, out: Any, scales: Any, thread: Any, threads: Any
) -> None:
    """Normalize and round this thread's rows."""
    for t in range(thread, len(x), threads):
        normalize(x[t], weight, eps, room)
        round_fine((address(room), scales.shape[1], address(out[t]), address(scales[t])))
