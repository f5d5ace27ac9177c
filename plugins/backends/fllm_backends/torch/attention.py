"""Attention over a paged cache of keys and values, in torch operations.

The new tokens of all rows form one flat batch. Rows with one new token attend together, in groups of similar
length. A row with more new tokens attends alone. Block tables say which parts of the cache a row gathers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fllm.batching.runner import Row
from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch.huge_pages import HugePages
from fllm_backends.torch.mapped_memory import HUGE_PAGE_BYTES, map_memory

_COPIED_BLOCKS = 64
"""Number of blocks that are gathered at once when they are copied."""


@dataclass(frozen=True, slots=True)
class KVShape:
    """What one layer stores of a token: for each head, a key and a value of these sizes."""

    kv_heads: int
    key_dim: int
    value_dim: int

    @property
    def elements(self) -> int:
        """Number of elements of the keys and values of a token."""
        return self.kv_heads * (self.key_dim + self.value_dim)


def uniform_shapes(architecture: Architecture) -> tuple[KVShape, ...]:
    """Return the shapes of a decoder whose layers all store the same."""
    a = architecture
    return (KVShape(a.kv_heads, a.head_dim, a.head_dim),) * len(a.layers)


class KVCache:
    """Keys and values of all layers, in blocks of ``block_size`` tokens.

    They are zeroed, because rows of different lengths that attend together read slots that were never
    written; their scores are masked.
    """

    def __init__(
        self,
        layers: Sequence[KVShape],
        blocks: int,
        block_size: int,
        like: Tensor,
        huge_pages: HugePages = "auto",
    ) -> None:
        self.num_blocks = blocks
        self.block_size = block_size
        self._slots = blocks * block_size
        self._layers = layers
        size = blocks, block_size
        keys = [(*size, layer.kv_heads, layer.key_dim) for layer in layers]
        values = [(*size, layer.kv_heads, layer.value_dim) for layer in layers]
        self._keys, self._values = (_Store(shapes, like, huge_pages) for shapes in (keys, values))

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values of a layer: [blocks, block_size, kv_heads, key_dim or value_dim]."""
        return self._keys.parts[index], self._values.parts[index]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys and values of all layers on a CPU: [layers, slots, kv_heads, dim] each.

        All layers must have the same shape. numpy lacks bfloat16, whose bits are int16.
        """
        [layer] = set(self._layers)
        size = len(self._layers), self._slots, layer.kv_heads
        keys, values = self._keys.whole, self._values.whole
        if self.dtype == torch.bfloat16:
            keys, values = keys.view(torch.int16), values.view(torch.int16)
        return keys.view(*size, layer.key_dim).numpy(), values.view(*size, layer.value_dim).numpy()

    @property
    def dtype(self) -> torch.dtype:
        """Type of keys and values."""
        return self._keys.whole.dtype

    @property
    def layout(self) -> tuple[tuple[int, int, int, int], ...]:
        """Runs of equal layers: how many, and kv_heads, key_dim and value_dim of each."""
        return tuple((len([*run]), *shape) for shape, run in groupby(astuple(each) for each in self._layers))

    @property
    def block_bytes(self) -> int:
        """Number of bytes of the keys and values of a block."""
        elements = sum(layer.elements for layer in self._layers)
        return elements * self.block_size * self._keys.whole.element_size()

    def read_blocks(self, blocks: Sequence[int]) -> list[bytes]:
        """Return copies of blocks: the keys of all layers, then their values."""
        copies: list[bytes] = []
        for start in range(0, len(blocks), _COPIED_BLOCKS):
            chosen = [*blocks[start : start + _COPIED_BLOCKS]]
            rows = np.concatenate([_to_numpy(store[chosen]) for store in self._block_bytes], 1)
            copies += [row.tobytes() for row in rows]
        return copies

    def write_blocks(self, blocks: Sequence[int], data: Sequence[bytes | memoryview]) -> None:
        """Replace the content of blocks by copies that `read_blocks` has returned."""
        for start in range(0, len(blocks), _COPIED_BLOCKS):
            part, place = slice(start, start + _COPIED_BLOCKS), 0
            chosen = [*blocks[part]]
            rows = np.stack([np.frombuffer(each, dtype=np.uint8) for each in data[part]])
            for store in self._block_bytes:
                end = place + store.shape[1]
                if isinstance(store, np.ndarray):
                    store[chosen] = rows[:, place:end]
                else:
                    store[chosen] = torch.from_numpy(rows[:, place:end]).to(store.device)
                place = end

    @cached_property
    def _block_bytes(self) -> list[np.ndarray] | list[Tensor]:
        """Keys, then values of all layers as [blocks, bytes].

        On a CPU they are numpy's: torch would divide these copies among threads, and wait for busy cores.
        """
        parts = [part for part in (*self._keys.parts, *self._values.parts) if part.numel()]
        flat = [part.flatten(1).view(torch.uint8) for part in parts]
        return [part.numpy() for part in flat] if self._keys.whole.device.type == "cpu" else flat

    def write(self, index: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store [tokens, kv_heads, dim] at [tokens] slots, which are block * block_size + offset."""
        key_store, value_store = self.layer(index)
        key_store.flatten(0, 1).index_copy_(0, slots, keys)
        value_store.flatten(0, 1).index_copy_(0, slots, values)


class _Store:
    """Zeros of several shapes, which lie one after the other in one piece of memory."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], like: Tensor, huge_pages: HugePages) -> None:
        sizes = [math.prod(shape) for shape in shapes]
        self.whole = self._zeros(sum(sizes), like, huge_pages)
        pieces = torch.split(self.whole, sizes)
        self.parts = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def _zeros(self, size: int, like: Tensor, huge_pages: HugePages) -> Tensor:
        """Return zeros that take memory on a CPU only when they are written. torch writes its own at once."""
        item = like.element_size()
        if like.device.type != "cpu" or size * item < HUGE_PAGE_BYTES:
            return like.new_zeros(size)
        memory = map_memory(size * item, huge=huge_pages == "on")
        return torch.from_numpy(memory[: size * item]).view(like.dtype)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which tokens a token attends to, and how the scores of a layer become weights."""

    window: int | None = None
    """Sliding window: number of tokens that a token attends to, itself included. ``None``: all before it."""
    chunk: int | None = None
    """A token attends only to tokens of its own chunk: positions with the same quotient by this number."""
    scale: float | None = None
    """Factor of the scores. ``None``: 1 / sqrt(key_dim)."""
    softcap: float | None = None
    """Scores are squeezed into this range: softcap * tanh(score / softcap)."""
    sinks: Tensor | None = None
    """Score of each head [heads] for attending to nothing, as in gpt-oss."""

    def masks(self, length: int) -> bool:
        """Return whether some of the ``length`` tokens before the end of a row are not attended to."""
        return bool((self.window and self.window < length) or (self.chunk and self.chunk < length))

    def seen(self, places: Tensor, queries: Tensor) -> Tensor:
        """Return whether queries at these positions attend to these places; the two are broadcast."""
        seen = places <= queries
        if self.window:
            seen &= places > queries - self.window
        if self.chunk:
            seen &= places // self.chunk == queries // self.chunk
        return seen

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool = False
    ) -> Tensor:
        """Return [rows, groups, queries, value_dim] from queries [rows, groups, queries, key_dim].

        ``key`` and ``value`` are [rows, groups, tokens, dim]. A group has its own keys: a head, or the heads
        that share them. In the latter case the queries of a group are those heads.
        """
        if self.softcap is None and self.sinks is None:
            return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=self.scale)
        scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        scores = (query * scale) @ key.transpose(-1, -2)
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        if self.sinks is not None:
            sinks = self.sinks.to(scores.dtype).view(1, scores.shape[1], -1, 1)
            scores = torch.cat([scores, sinks.expand(*scores.shape[:-1], 1)], -1)
        weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
        return weights[..., : key.shape[-2]] @ value


@dataclass(frozen=True)
class _DecodeRows:
    """Rows with one new token each."""

    tokens: Tensor
    """Positions of the new tokens in the batch: [rows]."""
    tables: Tensor
    """Block tables, padded with arbitrary blocks: [rows, blocks]."""
    lengths: Tensor
    """Number of tokens that each row attends to: [rows]."""
    longest: int
    uniform: bool
    """Whether all rows are as long as the longest."""

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, pattern: Pattern) -> Tensor:
        """Attend with [rows, heads, key_dim] queries; return [rows, heads, value_dim].

        The queries that share a kv head are passed as a sequence.
        """
        key = _gather(keys, self.tables, self.longest)
        value = _gather(values, self.tables, self.longest)
        grouped = query.view(len(query), key.shape[1], -1, query.shape[2])
        mask = None
        if not self.uniform or pattern.masks(self.longest):
            places = torch.arange(self.longest, device=self.lengths.device)
            mask = pattern.seen(places, self.lengths[:, None] - 1)[:, None, None]
        return pattern.attend(grouped, key, value, mask).flatten(1, 2)


@dataclass(frozen=True)
class _PrefillRow:
    """One row with several new tokens."""

    tokens: slice
    """Positions of the new tokens in the batch."""
    table: Tensor
    """Block table: [1, blocks]."""
    start: int

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, pattern: Pattern) -> Tensor:
        """Attend with [count, heads, key_dim] queries; return [count, heads, value_dim]."""
        count, heads = query.shape[:2]
        length = self.start + count
        share = heads // keys.shape[2]
        key = _gather(keys, self.table, length).repeat_interleave(share, 1)
        value = _gather(values, self.table, length).repeat_interleave(share, 1)
        plain = self.start == 0 and not pattern.masks(length)
        mask = None
        if not plain:
            places = torch.arange(length, device=self.table.device)
            mask = pattern.seen(places, places[self.start :, None])
        heads_first = query.transpose(0, 1)[None]
        return pattern.attend(heads_first, key, value, mask, causal=plain)[0].transpose(0, 1)


class AttentionBatch:
    """The attention pattern of one batch. It is built once and used by every layer."""

    def __init__(self, rows: Sequence[Row], block_size: int, device: torch.device) -> None:
        self.rows = rows
        self._block_size = block_size
        self._device = device

    @cached_property
    def positions(self) -> Tensor:
        """Positions of the new tokens in their sequences: [tokens]."""
        return self._tensor([p for row in self.rows for p in range(row.start, row.start + row.count)])

    @cached_property
    def sequence_lengths(self) -> Tensor:
        """Number of tokens of each new token's sequence, without drafts: [tokens]."""
        return self._tensor([len(row.token_ids) - row.drafts for row in self.rows for _ in range(row.count)])

    @cached_property
    def slots(self) -> Tensor:
        """Cache slots of the new tokens: [tokens]."""
        size = self._block_size
        return self._tensor(
            [
                row.block_table[p // size] * size + p % size
                for row in self.rows
                for p in range(row.start, row.start + row.count)
            ]
        )

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, pattern: Pattern) -> Tensor:
        """Attend with [tokens, heads, key_dim] queries, each row over its own blocks.

        Return [tokens, heads, value_dim].
        """
        result = query.new_empty(*query.shape[:2], values.shape[-1])
        for chunk in self._prefill_rows:
            result[chunk.tokens] = chunk.attend(query[chunk.tokens], keys, values, pattern)
        for decodes in self._decode_groups:
            result[decodes.tokens] = decodes.attend(query[decodes.tokens], keys, values, pattern)
        return result

    @cached_property
    def _offsets(self) -> list[tuple[int, Row]]:
        placed, at = [], 0
        for row in self.rows:
            placed.append((at, row))
            at += row.count
        return placed

    @cached_property
    def _prefill_rows(self) -> list[_PrefillRow]:
        return [
            _PrefillRow(slice(at, at + row.count), self._table(row)[None], row.start)
            for at, row in self._offsets
            if row.count > 1
        ]

    @cached_property
    def _decode_groups(self) -> list[_DecodeRows]:
        groups: dict[int, list[tuple[int, Row]]] = {}
        for at, row in self._offsets:
            if row.count == 1:
                groups.setdefault(row.start.bit_length(), []).append(
                    (at, row)
                )  # lengths in a group differ by a factor of two at most
        return [self._group(group) for group in groups.values()]

    def _group(self, group: list[tuple[int, Row]]) -> _DecodeRows:
        lengths = [row.start + 1 for _, row in group]
        tables = [self._table(row) for _, row in group]
        return _DecodeRows(
            tokens=self._tensor([at for at, _ in group]),
            tables=torch.nn.utils.rnn.pad_sequence(tables, batch_first=True),
            lengths=self._tensor(lengths),
            longest=max(lengths),
            uniform=min(lengths) == max(lengths),
        )

    def _table(self, row: Row) -> Tensor:
        blocks = -(-(row.start + row.count) // self._block_size)
        return self._tensor(row.block_table[:blocks])

    def _tensor(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, device=self._device)


def _to_numpy(values: np.ndarray | Tensor) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def _gather(store: Tensor, tables: Tensor, length: int) -> Tensor:
    """Return the first ``length`` tokens of each row's blocks: [rows, kv_heads, length, head_dim]."""
    blocks = store.index_select(0, tables.flatten())
    return blocks.view(len(tables), -1, *store.shape[2:])[:, :length].transpose(1, 2)
