"""RMSNorm, and the rounding of what comes out of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fllm_backends.torch.fused import simd_kernels
from fllm_backends.torch.fused.intrinsics import address
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.matmul import FINE
from fllm_backends.torch.fused.target import TARGET
from fllm_backends.torch.fused.thread_team import at_once, finish, take

round_fine = simd_kernels.round_groups(TARGET, FINE)

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
    x: Any, weight: Any, eps: Any, rooms: Any, out: Any, scales: Any, team: Any, phase: Any
) -> None:
    """Normalize and round all rows."""
    many, room = at_once(len(x), team), rooms[team.thread]
    pieces, mine = -(-len(x) // many), 0
    while True:
        first = take(team, phase) * many
        if first >= len(x):
            break
        mine += 1
        for t in range(first, min(first + many, len(x))):
            normalize(x[t], weight, eps, room)
            round_fine((address(room), scales.shape[1], address(out[t]), address(scales[t])))
    finish(team, phase, mine, pieces)
