"""RMSNorm and the quantization of its output."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fllm_backends.torch.fused import simd_kernels
from fllm_backends.torch.fused.intrinsics import address
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.matmul import PLANES_8_BIT, PLANES_15_BIT
from fllm_backends.torch.fused.simd_kernels import OUTLIER
from fllm_backends.torch.fused.target import TARGET
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase, units_per_piece

quantize_8_bit = simd_kernels.quantize_groups(TARGET, PLANES_8_BIT)
quantize_15_bit = simd_kernels.quantize_groups(TARGET, PLANES_15_BIT)
quantize_outliers = simd_kernels.quantize_groups(TARGET, PLANES_15_BIT, OUTLIER)

single = np.float32


@kernel()
def normalize(x: Any, weight: Any, eps: Any, out: Any) -> None:
    """Compute the RMSNorm of one row."""
    total = single(0)
    for i in range(len(x)):
        total += x[i] * x[i]
    scale = single(1) / math.sqrt(total / single(len(x)) + eps)
    for i in range(len(x)):
        out[i] = x[i] * scale * weight[i]


@kernel(fastmath=False)
def quantize(x: Any, normalized: Any, out: Any, scales: Any) -> None:
    """Quantize one row to as many bytes as ``out`` has for each column.

    With two, all groups have 15 bits, but if the row is normalized, only those with outliers.
    """
    arguments = (address(x), len(scales), address(out), address(scales))
    if len(out) == len(x):
        quantize_8_bit(arguments)
    elif normalized:
        quantize_outliers(arguments)
    else:
        quantize_15_bit(arguments)


@kernel(fastmath=False)
def normalize_rows(
    x: Any, weight: Any, eps: Any, buffers: Any, keep: Any, out: Any, scales: Any, team: Any, phase: Any
) -> None:
    """Normalize and quantize all rows; only quantize them if there is no weight.

    If ``keep``, the normalized rows are left in ``buffers``: [tokens, hidden]. Otherwise it has one row for
    each thread.
    """
    per_piece = units_per_piece(len(x), team)
    pieces, completed = -(-len(x) // per_piece), 0
    while True:
        first = claim_piece(team, phase) * per_piece
        if first >= len(x):
            break
        completed += 1
        for t in range(first, min(first + per_piece, len(x))):
            row = x[t]
            if len(weight):
                row = buffers[t if keep else team.thread]
                normalize(x[t], weight, eps, row)
            elif keep:
                row = buffers[t]
                for i in range(len(row)):
                    row[i] = x[t, i]
            quantize(row, len(weight) > 0, out[t], scales[t])
    finish_phase(team, phase, completed, pieces)


@kernel(fastmath=False)
def add_normalized_rows(
    x: Any, weight: Any, eps: Any, buffers: Any, outputs: Any, team: Any, phase: Any
) -> None:
    """Normalize the outputs of attention or a feed-forward layer, and add them to ``x``."""
    per_piece, buffer = units_per_piece(len(x), team), buffers[team.thread]
    pieces, completed = -(-len(x) // per_piece), 0
    while True:
        first = claim_piece(team, phase) * per_piece
        if first >= len(x):
            break
        completed += 1
        for t in range(first, min(first + per_piece, len(x))):
            normalize(outputs[t], weight, eps, buffer)
            for i in range(len(buffer)):
                x[t, i] += buffer[i]
    finish_phase(team, phase, completed, pieces)
