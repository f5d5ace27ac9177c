"""A decoder over the kernels, in the shape of `CausalLM`."""

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
from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch import rotary
from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.fused import layers, lm_head
from fllm_backends.torch.fused.arrays import Bank, Batch, Best, Integers, Layers, Scratch, Shape
from fllm_backends.torch.fused.matmul import FINE, ROWS
from fllm_backends.torch.fused.packing import GROUP, PANEL, Floats, Packed, fits, pack
from fllm_backends.torch.fused.target import targets
from fllm_backends.torch.fused.thread_team import Team, counts
from fllm_backends.torch.model import Linear, RMSNorm, Weights

QUERIES = 12
"""Rows of an attention tile: neighbouring tokens times the heads that share a kv head."""


def runs_here(a: Architecture) -> bool:
    """Whether the processor has the instructions, and the model a shape that can be packed."""
    heads, keys = a.heads * a.head_dim, 2 * a.kv_heads * a.head_dim
    shapes = [
        (heads + keys, a.hidden_size),
        (a.hidden_size, heads),
        (a.intermediate_size, a.hidden_size),
        (a.hidden_size, a.intermediate_size),
        (a.vocab_size, a.hidden_size),
    ]
    return bool(targets()) and a.head_dim % GROUP == 0 and all(fits(*shape) for shape in shapes)


class FusedLM:
    """A decoder on packed weights: token ids and positions to hidden states to logits.

    ``threads`` of them compute; ``max_positions`` bounds the length of a sequence. Blocks of the KV cache
    are divided into pages of 16 tokens, in an order of its own.
    """

    cache_dtype = torch.float16
    page = PANEL

    def __init__(self, a: Architecture, weights: Weights, *, threads: int, max_positions: int) -> None:
        self.architecture = a
        self.device = torch.device("cpu")
        self._threads = threads
        self._pool = ThreadPoolExecutor(max(threads - 1, 1), "kernels")
        self._shape = Shape(a.heads, a.kv_heads, np.float32(a.norm_eps))
        self._kept: list[Packed] = []
        self._layers = self._pack_layers(weights)
        self._norm = _array(weights.norm.weight).copy()  # else the checkpoint would stay mapped
        self._head = self._bank([pack(_array(weights.head))])
        tied = weights.embedding is weights.head
        self._embedding = self._head if tied else self._bank([pack(_array(weights.embedding))])
        self._frequencies = rotary.frequencies(a.rope, a.head_dim).numpy()
        self._amplitude = np.float32(rotary.amplitude(a.rope))
        self._max_pages = -(-max_positions // PANEL)
        self._scratch = self._room(1)

    def compile(self) -> None:
        """Compile the kernels, or find them compiled by an earlier start."""
        a = self.architecture
        cache = KVCache(
            len(a.layers), 1, PANEL, a.kv_heads, a.head_dim, like=torch.empty(0, dtype=self.cache_dtype)
        )
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
        self.choose(hidden)

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Hidden states of the new tokens, before the final norm: [tokens, hidden]."""
        x = np.empty((len(token_ids), self.architecture.hidden_size), np.float32)
        lm_head.look_up(token_ids.numpy(), self._embedding, x)
        keys, values = self._pages(cache)
        described = self._batch(batch.rows, cache.block_size // PANEL)
        self._run(
            layers.forward, self._shape, self._layers, described, x, keys, values, self._scratch_for(len(x))
        )
        return torch.from_numpy(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, hidden] to [rows, vocabulary], float32."""
        out = np.empty((len(hidden), self.architecture.vocab_size), np.float32)
        self._run_head(lm_head.logits, hidden, out)
        return torch.from_numpy(out)

    def choose(self, hidden: Tensor, allowed: Tensor | None = None) -> list[int]:
        """The likeliest token of each row of [rows, hidden], without all of its logits."""
        shape = (self._threads, len(hidden))
        masks = np.empty((0, 0), np.int32) if allowed is None else allowed.numpy()
        best = Best(np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64), masks)
        self._run_head(lm_head.choose, hidden, best)
        # Of equals the first, whichever thread found it.
        places = np.where(best.values == best.values.max(axis=0), best.places, self.architecture.vocab_size)
        chosen: list[int] = places.min(axis=0).tolist()
        return chosen

    def _run_head(self, kernel: Callable[..., None], hidden: Tensor, out: Any) -> None:
        x = hidden.contiguous().numpy()
        self._run(kernel, self._shape.eps, self._norm, self._head, x, out, self._scratch_for(len(x)))

    def _run(self, kernel: Callable[..., None], *arguments: Any) -> None:
        """Return when all is done, though a thread may not have begun: it will find nothing to do."""
        common = counts(max(len(self.architecture.layers) * layers.PHASES, lm_head.PHASES))
        others = [
            self._pool.submit(kernel, Team(thread, self._threads, common), *arguments)
            for thread in range(1, self._threads)
        ]
        kernel(Team(0, self._threads, common), *arguments)
        for other in others:
            other.cancel()

    def _pages(self, cache: KVCache) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Keys as [layers, pages, kv_heads, head_dim, PANEL], values with the last two swapped; as bits."""
        a = self.architecture
        keys, values = (array.reshape(len(a.layers), -1).view(np.uint16) for array in cache.arrays())
        shape = len(a.layers), -1, a.kv_heads
        return keys.reshape(*shape, a.head_dim, PANEL), values.reshape(*shape, PANEL, a.head_dim)

    def _batch(self, rows: Sequence[Row], pages: int) -> Batch:
        """``pages`` of them make a block."""
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
            _tiles(counts, self._tokens_at_once),
        )

    @property
    def _tokens_at_once(self) -> int:
        """Tokens of an attention tile."""
        return max(1, QUERIES * self.architecture.kv_heads // self.architecture.heads)

    def _scratch_for(self, tokens: int) -> Scratch:
        if tokens > len(self._scratch.hidden):
            self._scratch = self._room(tokens)
        own = Scratch._fields.index("row")
        return Scratch._make([*(array[:tokens] for array in self._scratch[:own]), *self._scratch[own:]])

    def _room(self, tokens: int) -> Scratch:
        a, threads = self.architecture, self._threads
        heads, inner = a.heads * a.head_dim, a.intermediate_size
        shared = a.heads // a.kv_heads
        queries = -(-shared * self._tokens_at_once // 4) * 4

        def floats(*shape: int) -> Floats:
            return np.zeros(shape, np.float32)

        return Scratch(
            hidden=np.empty((tokens, FINE * a.hidden_size), np.int8),
            hidden_scales=floats(tokens, a.hidden_size // GROUP, 2),
            heads=np.empty((tokens, heads), np.int8),
            heads_scales=floats(tokens, heads // GROUP, 2),
            wide=np.empty((tokens, inner), np.int8),
            wide_scales=floats(tokens, inner // GROUP, 2),
            qkv=floats(tokens, heads + 2 * a.kv_heads * a.head_dim),
            row=floats(threads, a.hidden_size),
            gates=floats(threads, ROWS * 2 * GROUP),
            queries=floats(threads, queries, a.head_dim),
            scores=floats(threads, queries, self._max_pages * PANEL),
            mixed=floats(threads, queries, a.head_dim),
            total=floats(threads, queries),
        )

    def _pack_layers(self, weights: Weights) -> Layers:
        a = self.architecture
        norms: list[list[Floats]] = []
        matrices: list[list[Packed]] = []
        with ThreadPoolExecutor(self._threads) as pool:
            for layer in weights.layers:
                norms.append(
                    [
                        _array(layer.input_norm.weight),
                        _array(layer.post_attention_norm.weight),
                        _head_norm(layer.q_norm),
                        _head_norm(layer.k_norm),
                    ]
                )
                matrices.append([*pool.map(_pack, (layer.gate_up, layer.down, layer.qkv, layer.output))])
        gate_up, down, qkv, output = (self._bank([*bank]) for bank in zip(*matrices, strict=True))
        input_norm, post_norm, q_norm, k_norm = (np.stack(kind) for kind in zip(*norms, strict=True))
        return Layers(
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

    def _bank(self, matrices: list[Packed]) -> Bank:
        self._kept += matrices  # the kernels know their addresses
        return Bank(
            np.array([matrix.records.ctypes.data for matrix in matrices]),
            np.array([matrix.records.shape[-1] for matrix in matrices]),
            np.stack([matrix.bias for matrix in matrices]),
        )


def _pack(linear: Linear) -> Packed:
    return pack(_array(linear.weight), None if linear.bias is None else _array(linear.bias))


def _head_norm(norm: RMSNorm | None) -> Floats:
    return np.empty(0, np.float32) if norm is None else _array(norm.weight)


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
    found, at = [], 0
    for row, count in enumerate(counts):
        found += [(at + i, min(size, count - i), row) for i in range(0, count, size)]
        at += count
    return np.array(found)
