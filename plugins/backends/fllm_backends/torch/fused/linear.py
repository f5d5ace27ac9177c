"""Linear layers and experts on packed weights, for models whose other operations are torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fllm_backends.torch.fused.formats import GROUP, PANEL
from fllm_backends.torch.fused.intrinsics import address
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.fused.matmul import PLANES_15_BIT, ROWS, linear, multiply_panels, packed_matrices
from fllm_backends.torch.fused.norms import normalize_rows
from fllm_backends.torch.fused.packing import pack
from fllm_backends.torch.fused.padding import place, round_up, spread
from fllm_backends.torch.fused.simd_kernels import SCALE_BYTES, SCALES
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase, units_per_piece
from fllm_backends.torch.weight_matrix import WeightMatrix, as_matrix

PHASES = 2
"""Number of phases of a product: quantize the rows, and multiply."""
NO_NORM = np.empty(0, np.float32)


@kernel(fastmath=False)
def multiply(team: Any, x: Any, matrices: Any, a: Any, scales: Any, out: Any) -> None:
    """Compute ``out = x @ matrix.T + bias`` for [rows, in] floats."""
    normalize_rows(x, NO_NORM, 0, x, False, a, scales, team, 0)
    linear(a, scales, matrices, 0, out, 0, team, 1)


@kernel(fastmath=False)
def multiply_jobs(team: Any, x: Any, matrices: Any, jobs: Any, a: Any, scales: Any, out: Any) -> None:
    """Multiply rows that are sorted by expert, each with the matrix of its expert.

    A job is [expert, first row, number of rows], with `ROWS` rows at most. The matrices of all experts are
    one, whose rows are the experts' one after the other.
    """
    normalize_rows(x, NO_NORM, 0, x, False, a, scales, team, 0)
    groups, panels, stride = scales.shape[1], out.shape[1] // PANEL, out.shape[1] * 4
    units = len(jobs) * panels
    per_piece = units_per_piece(units, team)
    pieces, completed = -(-units // per_piece), 0
    while True:
        piece = claim_piece(team, 1) * per_piece
        if piece >= units:
            break
        completed += 1
        for unit in range(piece, min(piece + per_piece, units)):
            job, panel = unit // panels, unit % panels
            expert, first, count = jobs[job, 0], jobs[job, 1], jobs[job, 2]
            place = expert * panels + panel
            multiply_panels(
                matrices,
                0,
                place,
                place + 1,
                address(a) + first * a.shape[1],
                address(scales) + first * groups * SCALE_BYTES,
                count,
                groups,
                address(matrices.bias) + place * PANEL * 4,
                address(out) + first * stride + panel * PANEL * 4,
                stride,
                0,
            )
    finish_phase(team, 1, completed, pieces)


class PackedProduct:
    """Products of rows of floats with one packed matrix, or with one of each expert."""

    def __init__(
        self,
        weight: Tensor | WeightMatrix,
        bias: Tensor | None,
        threads: KernelThreads,
        planes: int = PLANES_15_BIT,
        experts: int = 1,
    ) -> None:
        """Pack [out, in] weights, and pad both dimensions with zeros.

        ``planes`` is the number of bytes of a quantized activation. The matrices of several experts follow
        each other, [experts * out, in], and their biases are [experts, out].
        """
        self._threads = threads
        self._planes = planes
        matrix = as_matrix(weight)
        self.outputs, self.inputs = matrix.shape[0] // experts, matrix.shape[1]
        self._columns, self._rows = round_up(self.inputs, GROUP), round_up(self.outputs, PANEL)
        padded = place(
            matrix,
            spread(experts, self.outputs, self._rows),
            spread(1, self.inputs, self._columns),
        )
        biases = None
        if bias is not None:
            biases = F.pad(bias.detach(), (0, self._rows - self.outputs)).flatten().float().numpy()
        # The kernels hold the addresses of the packed matrix.
        self._packed = pack(padded, biases)
        self._matrices = packed_matrices([self._packed], planes)

    def multiply(self, x: Tensor) -> Tensor:
        """Return ``x @ weight.T + bias`` for [rows, in] floats: [rows, out]."""
        return self._run(multiply, x)

    def multiply_jobs(self, x: Tensor, jobs: np.ndarray) -> Tensor:
        """Return the products of [rows, in] floats with the matrices of their experts; see `expert_jobs`."""
        return self._run(multiply_jobs, x, jobs)

    def _run(self, kernel: Any, x: Tensor, *arguments: Any) -> Tensor:
        if self._columns != self.inputs:
            x = F.pad(x, (0, self._columns - self.inputs))
        rows = x.float().contiguous().numpy()
        quantized = np.empty((len(rows), self._planes * self._columns), np.int8)
        scales = np.empty((len(rows), self._columns // GROUP, SCALES), np.float32)
        out = np.empty((len(rows), self._rows), np.float32)
        if len(rows):
            self._threads.run(kernel, PHASES, rows, self._matrices, *arguments, quantized, scales, out)
        return torch.from_numpy(out)[:, : self.outputs]


def compile_products(threads: KernelThreads) -> None:
    """Compile the kernels of all products, or load those that an earlier start has compiled."""
    product = PackedProduct(torch.zeros(PANEL, GROUP), None, threads)
    product.multiply(torch.zeros(1, GROUP))
    product.multiply_jobs(torch.zeros(1, GROUP), expert_jobs([1]))


class PackedLinear(nn.Module):
    """Replaces an `nn.Linear`. Its ``weight`` is empty: some classes read the dtype of a layer from it."""

    def __init__(self, product: PackedProduct) -> None:
        super().__init__()
        self.in_features, self.out_features = product.inputs, product.outputs
        self.weight = torch.empty(0)
        self._product = product

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out] of [..., in]."""
        return self._product.multiply(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.out_features)


def expert_jobs(tokens_per_expert: list[int]) -> np.ndarray:
    """Return the jobs of `multiply_jobs` for rows that are sorted by expert: [jobs, 3]."""
    jobs, first = [], 0
    for expert, count in enumerate(tokens_per_expert):
        jobs += [(expert, first + at, min(ROWS, count - at)) for at in range(0, count, ROWS)]
        first += count
    return np.array(jobs, np.int64).reshape(-1, 3)
