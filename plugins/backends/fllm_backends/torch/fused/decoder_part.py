"""A rank's part of a decoder on the compiled kernels. The ranks exchange what each has computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.fused import layer_parts
from fllm_backends.torch.fused.arrays import Integers, Scratch
from fllm_backends.torch.fused.decoder import FusedLM, Inputs
from fllm_backends.torch.fused.formats import GROUP
from fllm_backends.torch.fused.layer_packing import own_parts
from fllm_backends.torch.fused.matmul import ROWS
from fllm_backends.torch.fused.packing import Floats
from fllm_backends.torch.fused.simd_kernels import SCALE_BYTES, SCALES
from fllm_backends.torch.model import Weights
from fllm_backends.torch.ranks import ALONE, Ranks


class FusedPart(FusedLM):
    """`FusedLM` with a rank's part of the rows of each matrix. It computes the same, to the bit.

    Each product is divided by its outputs, so its inputs are exchanged: four times a layer, where a division
    by inputs would add up partial sums twice. But those are rounded differently, and then quantized.
    """

    def __init__(
        self,
        a: Architecture,
        weights: Weights,
        *,
        threads: int,
        ranks: Ranks,
        cores: Sequence[int] = (),
    ) -> None:
        super().__init__(a, weights, threads=threads, ranks=ranks, cores=cores)
        self._ranks: Ranks = ALONE
        self._all = ranks
        parts = [own_parts(a, rank, ranks.size) for rank in range(ranks.size)]
        self._heads = [len(each.heads) * self._sizes.head_dim for each in parts]
        self._hidden = [len(each.hidden) for each in parts]
        self._inner = [len(each.inner) for each in parts]
        self._expert_inner = [len(each.expert_inner) for each in parts]
        self._vocabulary = [len(each.vocabulary) for each in parts]

    def compile(self) -> None:
        """Compile the kernels, while other ranks may wait for the lock: they exchange nothing."""
        super().compile()
        self._ranks = self._all

    def next_tokens(
        self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache, allowed: Tensor | None = None
    ) -> list[int]:
        """Return the most likely token after each of the new tokens."""
        return self.greedy_tokens(self.forward(token_ids, batch, cache), allowed)

    def next_logits(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Return the logits after each of the new tokens: the ranks exchange something between the layers."""
        return self.logits(self.forward(token_ids, batch, cache))

    def _embed(self, token_ids: Integers) -> Floats:
        own = self._own.vocabulary
        is_own = (token_ids >= own.start) & (token_ids < own.stop)
        x = super()._embed(np.where(is_own, token_ids - own.start, 0))
        x[~is_own] = 0
        return self._ranks.sum(torch.from_numpy(x)).numpy()

    def _run_layers(self, inputs: Inputs) -> None:
        batch, x, keys, values = inputs
        w, s, shape = self._layers, self._scratch_for(len(x)), self._shape
        for layer in range(len(keys)):
            self._step(layer_parts.attention, shape, w, batch, layer, x, keys[layer], values[layer], s)
            attention = self._exchange(s.attention, s.attention_scales, self._heads)
            self._add(x, w.output_norm[layer], s, layer_parts.project, *attention, w.output, layer)
            self._step(layer_parts.inner, shape, w, layer, x, s)
            if w.sparse[layer]:
                self._add_experts(x, w.mlp_output_norm[layer], s, layer)
            else:
                inner = self._exchange(s.inner, s.inner_scales, self._inner)
                self._add(x, w.mlp_output_norm[layer], s, layer_parts.project, *inner, w.down, layer)

    def _add_experts(self, x: Floats, norm: Floats, s: Scratch, layer: int) -> None:
        w = self._layers
        slots = s.chosen.size
        values, scales = self._exchange(
            s.expert_inner[:slots], s.expert_inner_scales[:slots], self._expert_inner
        )
        jobs = int((-(-np.diff(s.expert_ends, prepend=0) // ROWS)).sum())
        whole = s._replace(expert_inner=values, expert_inner_scales=scales)
        self._add(x, norm, s, layer_parts.project_experts, w.experts, layer, jobs, tail=(whole,))

    def _add(
        self,
        x: Floats,
        norm: Floats,
        s: Scratch,
        kernel: Any,
        *arguments: Any,
        tail: tuple[Any, ...] = (),
    ) -> None:
        """Add the outputs of half a layer to the hidden states; normalize them if ``norm`` has elements."""
        own = self._own.hidden
        if len(norm):
            outputs = np.zeros((len(x), len(own)), np.float32)
            self._step(kernel, *arguments, outputs, 0, *tail)
            whole = self._join(outputs)
            self._step(layer_parts.add_normalized, x, whole, norm, self._shape.output_eps, s)
            return
        outputs = x[:, own.start : own.stop].copy()
        self._step(kernel, *arguments, outputs, 1, *tail)
        x[:] = self._join(outputs)

    def _join(self, outputs: Floats) -> Floats:
        """Return the outputs of all ranks: [tokens, hidden]."""
        if self._ranks is ALONE:
            return np.zeros((len(outputs), self._sizes.hidden), np.float32)
        return self._ranks.concatenate(torch.from_numpy(outputs), self._hidden).numpy()

    def _exchange(
        self, values: NDArray[np.int8], scales: Floats, widths: Sequence[int]
    ) -> tuple[NDArray[np.int8], Floats]:
        """Return the quantized rows of all ranks, whose rows have these ``widths``, and their scales."""
        rows = len(values)
        if self._ranks is ALONE:
            total = sum(widths)
            return np.zeros((rows, total), np.int8), np.zeros((rows, total // GROUP, SCALES), np.float32)
        own = np.concatenate([values, scales.reshape(rows, -1).view(np.int8)], axis=1)
        sizes = [width + width // GROUP * SCALE_BYTES for width in widths]
        joined = self._ranks.concatenate(torch.from_numpy(own), sizes).numpy()
        pieces = np.split(joined, np.cumsum(sizes)[:-1], axis=1)
        both = [np.split(piece, [width], axis=1) for piece, width in zip(pieces, widths, strict=True)]
        every_value, every_scale = (
            np.ascontiguousarray(np.concatenate(kind, axis=1)) for kind in zip(*both, strict=True)
        )
        return every_value, every_scale.view(np.float32).reshape(rows, -1, SCALES)

    def _project(self, hidden: Tensor) -> Tensor:
        own = super()._project(hidden)
        if self._ranks is ALONE:
            return own.new_zeros(len(own), sum(self._vocabulary))
        return self._ranks.concatenate(own, self._vocabulary)

    def _step(self, kernel: Any, *arguments: Any) -> None:
        self._kernel_threads.run(kernel, layer_parts.PHASES, *arguments)
