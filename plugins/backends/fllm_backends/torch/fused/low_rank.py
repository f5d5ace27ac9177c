"""What LoRA adapters add to the products of the fused layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fllm.batching.runner import Row
from fllm_backends.torch.fused.arrays import LowRank
from fllm_backends.torch.fused.dot_products import PLANE_BITS
from fllm_backends.torch.fused.experts import dot
from fllm_backends.torch.fused.formats import GROUP
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.packing import Floats
from fllm_backends.torch.fused.padding import Places, take
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase, units_per_piece
from fllm_backends.torch.lora.adapters import Adapter

QKV, OUTPUT, GATE_UP, DOWN = range(4)
MATRICES = "qkv", "output", "gate_up", "down"
PLANE_UNIT = np.float32(2.0**-PLANE_BITS)
"""Value of a number of the second plane, in units of the first."""

single = np.float32


@kernel(fastmath=False)
def dequantize(row: Any, scales: Any, out: Any) -> None:
    """Write the floats of one quantized row to ``out``, see `simd_kernels.quantize_groups`."""
    two_planes = len(row) == 2 * GROUP * len(scales)
    for group in range(len(scales)):
        scale = scales[group, 0]
        for i in range(GROUP):
            at = group * GROUP + i
            number = single(row[at])
            if two_planes:
                number += PLANE_UNIT * single(row[at + GROUP * len(scales)])
            out[at] = scale * number


@kernel()
def add_scaled(scale: Any, x: Any, out: Any) -> None:
    """Compute ``out += scale * x``."""
    for i in range(len(x)):
        out[i] += scale * x[i]


@kernel(fastmath=False)
def add_low_rank(
    a: Any, scales: Any, low_rank: Any, matrix: Any, layer: Any, clear: Any, out: Any, team: Any, phase: Any
) -> None:
    """Compute ``out += b @ (a @ row)`` for the rows that have an adapter; first clear all if ``clear``."""
    rows, row = len(scales), low_rank.rows[team.thread]
    per_piece = units_per_piece(rows, team)
    pieces, completed = -(-rows // per_piece), 0
    while True:
        first = claim_piece(team, phase) * per_piece
        if first >= rows:
            break
        completed += 1
        for t in range(first, min(first + per_piece, rows)):
            if clear:
                for i in range(out.shape[1]):
                    out[t, i] = single(0)
            place = low_rank.places[t]
            rank = low_rank.ranks[place, layer, matrix]
            if rank:
                dequantize(a[t], scales[t], row)
                inputs, outputs = GROUP * scales.shape[1], out.shape[1]
                at = low_rank.offsets[place, layer, matrix]
                up = at + rank * inputs
                for r in range(rank):
                    product = dot(row[:inputs], low_rank.values[at + r * inputs : at + (r + 1) * inputs])
                    add_scaled(product, low_rank.values[up + r * outputs : up + (r + 1) * outputs], out[t])
    finish_phase(team, phase, completed, pieces)


class LowRankAdapters:
    """The loaded adapters of a decoder, as the kernels read them: one array, and where each matrix is."""

    def __init__(
        self, layers: int, threads: int, places: Mapping[str, tuple[Places, Places]], inner: int
    ) -> None:
        """Create an empty store; ``places`` are those of the rows and the columns of each of `MATRICES`."""
        self._layers = layers
        self._places = places
        self._inner = inner
        self._adapters: dict[int, list[list[Floats]]] = {}
        self._rows = np.zeros((threads, max(len(columns) for _, columns in places.values())), np.float32)
        self._none = LowRank.none()
        self._values, self._offsets, self._ranks = self._none.values, self._none.offsets, self._none.ranks

    def add(self, adapter_id: int, adapter: Adapter) -> None:
        """Make an adapter available."""
        self._adapters[adapter_id] = [
            [self._terms(adapter, layer, name) for name in MATRICES] for layer in range(self._layers)
        ]
        self._collect()

    def remove(self, adapter_id: int) -> None:
        """Free an adapter."""
        self._adapters.pop(adapter_id, None)
        self._collect()

    def select(self, rows: Sequence[Row]) -> LowRank:
        """Return what the kernels need for a batch."""
        if not any(row.adapter for row in rows):
            return self._none
        index = {adapter: place for place, adapter in enumerate(self._adapters, 1)} | {0: 0}
        places = np.repeat([index[row.adapter] for row in rows], [row.count for row in rows])
        gates = np.empty((len(places), 2 * self._inner), np.float32)
        return LowRank(places, self._values, self._offsets, self._ranks, self._rows, gates)

    def _terms(self, adapter: Adapter, layer: int, name: str) -> Floats:
        """Return [rank, columns + rows]: ``a``, and the transposed ``b``, of all parts of a matrix."""
        rows, columns = self._places[name]
        parts = adapter.get((layer, name), ())
        terms: list[Tensor] = []
        for part in parts:
            up = torch.zeros(int(rows.max()) + 1, part.b.shape[1])
            up[part.first : part.first + len(part.b)] = part.b
            terms.append(torch.cat([take(part.a, columns, 1), take(up, rows).T], 1))
        if not terms:
            return np.empty((0, len(rows) + len(columns)), np.float32)
        array: Floats = torch.cat(terms).float().numpy()
        return array

    def _collect(self) -> None:
        """Put all adapters into one array. The first place is that of no adapter."""
        values: list[Floats] = []
        offsets = np.zeros((len(self._adapters) + 1, self._layers, len(MATRICES)), np.int64)
        ranks, end = np.zeros_like(offsets), 0
        for place, layers in enumerate(self._adapters.values(), 1):
            for layer, matrices in enumerate(layers):
                for matrix, terms in enumerate(matrices):
                    columns = len(self._places[MATRICES[matrix]][1])
                    offsets[place, layer, matrix], ranks[place, layer, matrix] = end, len(terms)
                    values += terms[:, :columns].ravel(), terms[:, columns:].ravel()
                    end += terms.size
        self._values = np.concatenate(values) if values else np.empty(0, np.float32)
        self._offsets, self._ranks = offsets, ranks
