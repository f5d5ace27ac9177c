"""A decoder over the kernels, in the shape of `CausalLM`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite.binding import get_host_cpu_features
from numpy.typing import NDArray
from torch import Tensor

from fllm.batching.runner import Row
from fllm.values import Sampling
from fllm_backends.torch import rotary
from fllm_backends.torch.architecture import Architecture
from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.fused import kernels
from fllm_backends.torch.fused.packing import Floats, Packed, fits, pack, stack
from fllm_backends.torch.model import Linear, RMSNorm, Weights

Integers = NDArray[np.int64]


class Shape(NamedTuple):
    """What the kernels must know of the model."""

    heads: int
    kv_heads: int
    block_size: int
    eps: np.float32


class Layers(NamedTuple):
    """The weights of all layers; norms are [layers, size]."""

    input_norm: Floats
    post_norm: Floats
    q_norm: Floats
    k_norm: Floats
    qkv: Packed
    output: Packed
    gate_up: Packed
    down: Packed
    window: Integers
    """Of each layer; 0 for none."""
    rotary: NDArray[np.bool_]


class Batch(NamedTuple):
    """Who computes what; one entry for each new token, but for the tables."""

    positions: Integers
    slots: Integers
    row_of: Integers
    tables: Integers
    """Block tables, padded: [rows, blocks]."""
    cosine: Floats
    sine: Floats
    """[tokens, head_dim / 2]"""


class Scratch(NamedTuple):
    """Room for what a layer computes: [tokens, ...], and three that each thread has for itself."""

    hidden: NDArray[np.int16]
    heads: NDArray[np.int16]
    wide: NDArray[np.int16]
    scales: Floats
    qkv: Floats
    seen: Floats
    gate_up: Floats
    inner: Floats
    scores: Floats
    tile: Floats
    row: Floats


def runs_here(a: Architecture) -> bool:
    """Whether the processor has the instructions, and the model a shape that can be packed."""
    heads, keys = a.heads * a.head_dim, 2 * a.kv_heads * a.head_dim
    shapes = [
        (heads + keys, a.hidden_size),
        (a.hidden_size, heads),
        (2 * a.intermediate_size, a.hidden_size),
        (a.hidden_size, a.intermediate_size),
        (a.vocab_size, a.hidden_size),
    ]
    features = get_host_cpu_features()
    able = features.get("avx2", False) and features.get("fma", False)
    return able and a.head_dim % 8 == 0 and all(fits(*shape) for shape in shapes)


class FusedLM:
    """A decoder on int8 weights: token ids and positions to hidden states to logits.

    ``threads`` of them compute; ``max_positions`` bounds the length of a sequence.
    """

    def __init__(self, a: Architecture, weights: Weights, *, threads: int, max_positions: int) -> None:
        self.architecture = a
        self.device = torch.device("cpu")
        self._threads = threads
        self._pool = ThreadPoolExecutor(max(threads - 1, 1), "kernels")
        self._barrier = np.zeros(1, np.int64)
        # A copy: the checkpoint, which is mapped into memory, can go once it is rounded.
        self._embedding = weights.embedding.float().clone()
        self._layers = _layers(a, weights)
        self._norm = _array(weights.norm.weight)
        self._head = pack(_array(weights.head))
        self._frequencies = rotary.frequencies(a.rope, a.head_dim).numpy()
        self._amplitude = rotary.amplitude(a.rope)
        self._max_positions = max_positions
        self._scratch = self._room(1)

    def compile(self) -> None:
        """Compile the kernels, or find them compiled by an earlier start."""
        a = self.architecture
        cache = KVCache(len(a.layers), 1, 2, a.kv_heads, a.head_dim, like=torch.empty(0))
        row = Row(
            token_ids=[0],
            prompt_length=1,
            start=0,
            count=1,
            block_table=[0],
            sampling=Sampling(max_tokens=1),
            seed=0,
            sample=True,
        )
        self.logits(self.forward(torch.tensor([0]), AttentionBatch([row], 2, self.device), cache))

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Hidden states of the new tokens, before the final norm: [tokens, hidden]."""
        x = self._embedding[token_ids].numpy()
        shape = Shape(
            self.architecture.heads,
            self.architecture.kv_heads,
            cache.block_size,
            np.float32(self.architecture.norm_eps),
        )
        scratch = self._scratch_for(len(x))
        self._run(kernels.forward, shape, self._layers, self._batch(batch), x, *cache.arrays(), scratch)
        return torch.from_numpy(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, hidden] to [rows, vocabulary], float32."""
        out = np.empty((len(hidden), self.architecture.vocab_size), np.float32)
        eps = np.float32(self.architecture.norm_eps)
        x = hidden.contiguous().numpy()
        self._run(kernels.head, eps, self._norm, self._head, x, out, self._scratch_for(len(x)))
        return torch.from_numpy(out)

    def _run(self, kernel: Callable[..., None], *arguments: Any) -> None:
        self._barrier[0] = 0
        others = [
            self._pool.submit(kernel, thread, self._threads, self._barrier, *arguments)
            for thread in range(1, self._threads)
        ]
        kernel(0, self._threads, self._barrier, *arguments)
        for other in others:
            other.result()

    def _batch(self, batch: AttentionBatch) -> Batch:
        rows = batch.rows
        positions = batch.positions.numpy()
        angles = positions.astype(np.float32)[:, None] * self._frequencies
        return Batch(
            positions,
            batch.slots.numpy(),
            np.repeat(np.arange(len(rows)), [row.count for row in rows]),
            _tables(rows),
            np.cos(angles) * np.float32(self._amplitude),
            np.sin(angles) * np.float32(self._amplitude),
        )

    def _scratch_for(self, tokens: int) -> Scratch:
        if tokens > len(self._scratch.hidden):
            self._scratch = self._room(tokens)
        own = Scratch._fields.index("scores")
        return Scratch._make([*(array[:tokens] for array in self._scratch[:own]), *self._scratch[own:]])

    def _room(self, tokens: int) -> Scratch:
        a, threads = self.architecture, self._threads
        heads, inner = a.heads * a.head_dim, a.intermediate_size
        qkv = heads + 2 * a.kv_heads * a.head_dim

        def floats(*shape: int) -> Floats:
            return np.empty(shape, np.float32)

        return Scratch(
            hidden=np.empty((tokens, a.hidden_size), np.int16),
            heads=np.empty((tokens, heads), np.int16),
            wide=np.empty((tokens, inner), np.int16),
            scales=floats(tokens),
            qkv=floats(tokens, qkv),
            seen=floats(tokens, heads),
            gate_up=floats(tokens, 2 * inner),
            inner=floats(tokens, inner),
            scores=floats(threads, self._max_positions),
            tile=floats(threads, 16),
            row=floats(threads, a.hidden_size),
        )


def _layers(a: Architecture, weights: Weights) -> Layers:
    layers = weights.layers
    none = RMSNorm(torch.empty(0), a.norm_eps)
    return Layers(
        input_norm=_norms([layer.input_norm for layer in layers]),
        post_norm=_norms([layer.post_attention_norm for layer in layers]),
        q_norm=_norms([layer.q_norm or none for layer in layers]),
        k_norm=_norms([layer.k_norm or none for layer in layers]),
        qkv=_matrices([layer.qkv for layer in layers]),
        output=_matrices([layer.output for layer in layers]),
        gate_up=_matrices([layer.gate_up for layer in layers]),
        down=_matrices([layer.down for layer in layers]),
        window=np.array([kind.window or 0 for kind in a.layers]),
        rotary=np.array([kind.rotary for kind in a.layers]),
    )


def _matrices(linears: list[Linear]) -> Packed:
    return stack([pack(_array(x.weight), None if x.bias is None else _array(x.bias)) for x in linears])


def _norms(norms: list[RMSNorm]) -> Floats:
    return np.stack([_array(norm.weight) for norm in norms])


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().float().numpy()
    return array


def _tables(rows: Sequence[Row]) -> Integers:
    longest = max(len(row.block_table) for row in rows)
    tables = np.zeros((len(rows), longest), np.int64)
    for table, row in zip(tables, rows, strict=True):
        table[: len(row.block_table)] = row.block_table
    return tables
