"""A decoder on the compiled kernels, with the interface of `CausalLM`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.checkpoints.architecture import Architecture, Feature
from fllm_backends.torch import rotary
from fllm_backends.torch.attention import AttentionBatch, KVCache, uniform_shapes
from fllm_backends.torch.fused import layers, lm_head
from fllm_backends.torch.fused.arrays import (
    ArgmaxState,
    Batch,
    Integers,
    LayerWeights,
    ModelShape,
    PackedMatrices,
    Scratch,
)
from fllm_backends.torch.fused.formats import GROUP, PANEL
from fllm_backends.torch.fused.matmul import PLANES_8_BIT, PLANES_15_BIT, ROWS, packed_matrices
from fllm_backends.torch.fused.packing import Floats, PackedMatrix, can_pack, pack
from fllm_backends.torch.fused.simd_kernels import SCALES, Activation
from fllm_backends.torch.fused.target import targets
from fllm_backends.torch.fused.thread_team import ThreadTeam, new_counters
from fllm_backends.torch.model import Linear, Mlp, RMSNorm, Weights
from fllm_backends.torch.weight_matrix import as_matrix

QUERIES_PER_TILE = 12
"""Maximum rows of an attention tile: neighbouring tokens times the heads that share a kv head."""


FEATURES: frozenset[Feature] = frozenset()
"""Those of `Architecture.features` that the kernels support."""


def is_supported(a: Architecture) -> bool:
    """Return whether the processor and the kernels support the model, and its matrices can be packed."""
    return bool(targets()) and a.features <= FEATURES and _can_pack_all(a)


def _can_pack_all(a: Architecture) -> bool:
    heads, keys = a.heads * a.head_dim, 2 * a.kv_heads * a.head_dim
    shapes = [
        (heads + keys, a.hidden_size),
        (a.hidden_size, heads),
        (a.intermediate_size, a.hidden_size),
        (a.hidden_size, a.intermediate_size),
        (a.vocab_size, a.hidden_size),
    ]
    return a.head_dim % GROUP == 0 and all(can_pack(*shape) for shape in shapes)


class FusedLM:
    """A decoder on packed weights.

    ``threads`` is the number of threads that compute; ``max_positions`` bounds the length of a sequence.
    Blocks of the KV cache are divided into pages of 16 tokens, whose layout is the kernels' own.
    """

    cache_dtype = torch.float16
    block_multiple = PANEL

    def __init__(self, a: Architecture, weights: Weights, *, threads: int, max_positions: int) -> None:
        self.architecture = a
        self.vocab_size = a.vocab_size
        self.kv_shapes = uniform_shapes(a)
        self.device = torch.device("cpu")
        self._threads = threads
        self._pool = ThreadPoolExecutor(max(threads - 1, 1), "kernels")
        self._shape = ModelShape(a.heads, a.kv_heads, np.float32(a.norm_eps), int(Activation.SILU))
        self._packed: list[PackedMatrix] = []
        self._layers = self._pack_layers(weights)
        self._norm = _norm_array(weights.norm).copy()  # a copy, so that the checkpoint does not stay mapped
        head = pack(as_matrix(weights.head))
        tied = weights.embedding is weights.head
        embedding = head if tied else pack(as_matrix(weights.embedding))
        self._head = self._matrices([head], PLANES_15_BIT)
        self._embedding = lm_head.embedding(embedding)
        self._packed.append(embedding)
        self._frequencies = rotary.frequencies(a.ropes[0], a.rotary_dim).numpy()
        self._amplitude = np.float32(rotary.amplitude(a.ropes[0]))
        self._max_pages = -(-max_positions // PANEL)
        self._scratch = self._allocate_scratch(1)

    def compile(self) -> None:
        """Compile the kernels, or load those that an earlier start has compiled."""
        cache = KVCache(self.kv_shapes, 1, PANEL, like=torch.empty(0, dtype=self.cache_dtype))
        row = Row(
            token_ids=[0],
            prompt_length=1,
            start=0,
            count=1,
            block_table=[0],
            sampling=SamplingParams(max_tokens=1),
            seed=0,
            sample=True,
        )
        hidden = self.forward(torch.tensor([0]), AttentionBatch([row], PANEL, self.device), cache)
        self.logits(hidden)
        self.greedy_tokens(hidden)

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Return the hidden states of the new tokens, before the final norm: [tokens, hidden]."""
        x = np.empty((len(token_ids), self.architecture.hidden_size), np.float32)
        lm_head.embed(token_ids.numpy(), self._embedding, x)
        keys, values = self._pages(cache)
        arrays = self._batch(batch.rows, cache.block_size // PANEL)
        self._run(
            layers.forward, self._shape, self._layers, arrays, x, keys, values, self._scratch_for(len(x))
        )
        return torch.from_numpy(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return [rows, vocabulary] float32 logits of [rows, hidden] states."""
        out = np.empty((len(hidden), self.architecture.vocab_size), np.float32)
        self._run_head(lm_head.logits, hidden, out)
        return torch.from_numpy(out)

    def greedy_tokens(self, hidden: Tensor, allowed: Tensor | None = None) -> list[int]:
        """Return the most likely token of each row of [rows, hidden], without storing all logits."""
        shape = (self._threads, len(hidden))
        masks = np.empty((0, 0), np.int32) if allowed is None else allowed.numpy()
        state = ArgmaxState(np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64), masks)
        self._run_head(lm_head.greedy_tokens, hidden, state)
        # Of equals the first, whichever thread found it.
        tokens = np.where(
            state.values == state.values.max(axis=0), state.tokens, self.architecture.vocab_size
        )
        chosen: list[int] = tokens.min(axis=0).tolist()
        return chosen

    def _run_head(self, kernel: Callable[..., None], hidden: Tensor, out: Any) -> None:
        x = hidden.contiguous().numpy()
        self._run(kernel, self._shape.eps, self._norm, self._head, x, out, self._scratch_for(len(x)))

    def _run(self, kernel: Callable[..., None], *arguments: Any) -> None:
        """Run a kernel in all threads; return when all pieces are done.

        A thread may not have begun by then: it will find no piece left.
        """
        counters = new_counters(max(len(self.architecture.layers) * layers.PHASES, lm_head.PHASES))
        workers = [
            self._pool.submit(kernel, ThreadTeam(thread, self._threads, counters), *arguments)
            for thread in range(1, self._threads)
        ]
        kernel(ThreadTeam(0, self._threads, counters), *arguments)
        for worker in workers:
            worker.cancel()

    def _pages(self, cache: KVCache) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Return keys as [layers, pages, kv_heads, head_dim, PANEL], values with the last two swapped.

        Both are views of the float16 bits.
        """
        a = self.architecture
        keys, values = (array.reshape(len(a.layers), -1).view(np.uint16) for array in cache.arrays())
        shape = len(a.layers), -1, a.kv_heads
        return keys.reshape(*shape, a.head_dim, PANEL), values.reshape(*shape, PANEL, a.head_dim)

    def _batch(self, rows: Sequence[Row], pages: int) -> Batch:
        """Build the kernels' batch; a block has ``pages`` pages."""
        counts = [row.count for row in rows]
        row_of = np.repeat(np.arange(len(rows)), counts)
        positions = np.concatenate([np.arange(row.start, row.start + row.count) for row in rows])
        tables = _tables(rows, pages)
        angles = positions.astype(np.float32)[:, None] * self._frequencies
        return Batch(
            positions,
            tables[row_of, positions // PANEL] * PANEL + positions % PANEL,
            np.cos(angles) * self._amplitude,
            np.sin(angles) * self._amplitude,
            tables,
            _tiles(counts, self._tokens_per_tile),
        )

    @property
    def _tokens_per_tile(self) -> int:
        """Number of tokens of an attention tile."""
        return max(1, QUERIES_PER_TILE * self.architecture.kv_heads // self.architecture.heads)

    def _scratch_for(self, tokens: int) -> Scratch:
        if tokens > len(self._scratch.hidden):
            self._scratch = self._allocate_scratch(tokens)
        own = Scratch._fields.index("norm_row")
        return Scratch._make([*(array[:tokens] for array in self._scratch[:own]), *self._scratch[own:]])

    def _allocate_scratch(self, tokens: int) -> Scratch:
        a, threads = self.architecture, self._threads
        heads, inner = a.heads * a.head_dim, a.intermediate_size
        shared = a.heads // a.kv_heads
        queries = -(-shared * self._tokens_per_tile // 4) * 4

        def floats(*shape: int) -> Floats:
            return np.zeros(shape, np.float32)

        return Scratch(
            hidden=np.empty((tokens, PLANES_15_BIT * a.hidden_size), np.int8),
            hidden_scales=floats(tokens, a.hidden_size // GROUP, SCALES),
            attention=np.empty((tokens, heads), np.int8),
            attention_scales=floats(tokens, heads // GROUP, SCALES),
            inner=np.empty((tokens, inner), np.int8),
            inner_scales=floats(tokens, inner // GROUP, SCALES),
            qkv=floats(tokens, heads + 2 * a.kv_heads * a.head_dim),
            norm_row=floats(threads, a.hidden_size),
            gate_up=floats(threads, ROWS * 2 * GROUP),
            queries=floats(threads, queries, a.head_dim),
            scores=floats(threads, queries, self._max_pages * PANEL),
            weighted=floats(threads, queries, a.head_dim),
            softmax_sums=floats(threads, queries),
        )

    def _pack_layers(self, weights: Weights) -> LayerWeights:
        a = self.architecture
        norms: list[list[Floats]] = []
        matrices: list[list[PackedMatrix]] = []
        with ThreadPoolExecutor(self._threads) as pool:
            for layer in weights.layers:
                assert isinstance(layer.mlp, Mlp), "see FEATURES"
                assert layer.input_norm, "see FEATURES"
                assert layer.mlp_norm, "see FEATURES"
                norms.append(
                    [
                        _norm_array(layer.input_norm),
                        _norm_array(layer.mlp_norm),
                        _head_norm(layer.q_norm),
                        _head_norm(layer.k_norm),
                    ]
                )
                matrices.append(
                    [*pool.map(_pack, (layer.mlp.gate_up, layer.mlp.down, layer.qkv, layer.output))]
                )
        planes = PLANES_15_BIT, PLANES_8_BIT, PLANES_15_BIT, PLANES_8_BIT
        gate_up, down, qkv, output = (
            self._matrices([*bank], width)
            for bank, width in zip(zip(*matrices, strict=True), planes, strict=True)
        )
        input_norm, post_norm, q_norm, k_norm = (np.stack(kind) for kind in zip(*norms, strict=True))
        return LayerWeights(
            input_norm=input_norm,
            post_norm=post_norm,
            q_norm=q_norm,
            k_norm=k_norm,
            qkv=qkv,
            output=output,
            gate_up=gate_up,
            down=down,
            window=np.array([kind.window or 0 for kind in a.layers]),
            rotary=np.array([kind.rotary for kind in a.layers]),
        )

    def _matrices(self, matrices: list[PackedMatrix], planes: int) -> PackedMatrices:
        self._packed += matrices  # the kernels hold their addresses
        return packed_matrices(matrices, planes)


def _pack(linear: Linear) -> PackedMatrix:
    return pack(as_matrix(linear.weight), None if linear.bias is None else _array(linear.bias))


def _head_norm(norm: RMSNorm | None) -> Floats:
    return np.empty(0, np.float32) if norm is None else _norm_array(norm)


def _norm_array(norm: RMSNorm) -> Floats:
    """Return what the normalised values are multiplied by."""
    weight = _array(norm.weight)
    return weight + np.float32(norm.offset) if norm.offset else weight


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().float().numpy()
    return array


def _tables(rows: Sequence[Row], pages: int) -> Integers:
    longest = max(len(row.block_table) for row in rows)
    tables = np.zeros((len(rows), longest, pages), np.int64)
    for table, row in zip(tables, rows, strict=True):
        blocks = np.array(row.block_table)[:, None]
        table[: len(blocks)] = blocks * pages + np.arange(pages)
    return tables.reshape(len(rows), -1)


def _tiles(counts: Sequence[int], size: int) -> Integers:
    tiles, at = [], 0
    for row, count in enumerate(counts):
        tiles += [(at + i, min(size, count - i), row) for i in range(0, count, size)]
        at += count
    return np.array(tiles)
