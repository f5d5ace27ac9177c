"""Attention over the paged cache, which is read where it lies: by block table, never gathered.

Two kernels. Rows with one new token share their keys among many programs, whose partial results a third
kernel joins (flash-decoding); the queries that share a kv head are one tile. Rows with more are cut into
tiles of queries, each of which walks over its keys once (FlashAttention-2, arXiv 2307.08691).
"""

from __future__ import annotations

import math

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from fllm_backends.torch.cuda.batch import QUERIES, Batch
from fllm_backends.torch.cuda.jit import kernel

_KEYS = 64
"""Keys that a program holds at once."""
_MAX_SPLITS = 64
_LOG2_E = math.log2(math.e)


def attend_decodes(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    batch: Batch,
    window: int | None,
    programs: int,
    out: Tensor,
) -> None:
    """Rows of one new token: [tokens, heads, head_dim] into ``out``, at the tokens that they name.

    ``keys`` and ``values``: [blocks, block_size, kv_heads, head_dim]. The keys of a row are divided so that
    there are at least so many ``programs``, whatever the lengths: a recorded graph has one grid for all.
    """
    rows = len(batch.decodes.tokens)
    heads, head_dim = query.shape[1:]
    block_size, kv_heads = keys.shape[1:3]
    wanted = -(-programs // (rows * kv_heads))
    splits = min(1 << (wanted - 1).bit_length(), _MAX_SPLITS)  # a power of 2
    sums = query.new_empty((rows, heads, splits, head_dim), dtype=torch.float32)
    weights = query.new_empty((rows, heads, splits), dtype=torch.float32)
    dims = max(16, triton.next_power_of_2(head_dim))
    _attend_decode[(rows, kv_heads, splits)](
        query,
        keys,
        values,
        batch.tables,
        batch.width,
        batch.decodes.tokens,
        batch.decodes.lengths,
        sums,
        weights,
        _LOG2_E / math.sqrt(head_dim),
        WINDOW=window or 0,
        HEADS=heads,
        KV_HEADS=kv_heads,
        HEAD_DIM=head_dim,
        DIMS=dims,
        BLOCK_SIZE=block_size,
        SHARED=max(16, triton.next_power_of_2(heads // kv_heads)),
        KEYS=_KEYS,
        num_stages=_stages(keys),
    )
    _join[(rows, heads)](
        sums, weights, batch.decodes.tokens, out, HEADS=heads, HEAD_DIM=head_dim, DIMS=dims, SPLITS=splits
    )


def attend_chunks(
    query: Tensor, keys: Tensor, values: Tensor, batch: Batch, window: int | None, out: Tensor
) -> None:
    """Rows of several new tokens: [tokens, heads, head_dim] into ``out``, where their tiles say."""
    heads, head_dim = query.shape[1:]
    block_size, kv_heads = keys.shape[1:3]
    _attend_chunk[(len(batch.tiles), heads)](
        query,
        keys,
        values,
        batch.tables,
        batch.width,
        batch.tiles,
        out,
        _LOG2_E / math.sqrt(head_dim),
        WINDOW=window or 0,
        HEADS=heads,
        KV_HEADS=kv_heads,
        HEAD_DIM=head_dim,
        DIMS=max(16, triton.next_power_of_2(head_dim)),
        BLOCK_SIZE=block_size,
        QUERIES=QUERIES,
        KEYS=_KEYS,
        num_stages=_stages(keys),
    )


def _stages(keys: Tensor) -> int:
    """How many tiles of keys are on their way at once: as many as fit into the shared memory."""
    return 1 if keys.element_size() == 4 else 2


@kernel
def _attend_decode(
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    tables: tl.tensor,
    width: tl.tensor,
    tokens: tl.tensor,
    lengths: tl.tensor,
    sums: tl.tensor,
    weights: tl.tensor,
    scale: tl.tensor,
    WINDOW: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    SHARED: tl.constexpr,
    KEYS: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    splits = tl.num_programs(2)
    length = tl.load(lengths + row)
    table = tables + row * tl.load(width)
    first = tl.maximum(length - WINDOW, 0) if WINDOW else 0
    share = tl.cdiv(tl.cdiv(length - first, splits), KEYS) * KEYS
    begin = first + split * share
    end = tl.minimum(begin + share, length)

    dims = tl.arange(0, DIMS)
    shared = tl.arange(0, SHARED)
    heads = kv_head * (HEADS // KV_HEADS) + shared
    real = (shared < HEADS // KV_HEADS)[:, None] & (dims < HEAD_DIM)[None, :]
    places = heads[:, None] * HEAD_DIM + dims[None, :]
    own = tl.load(query + tl.load(tokens + row) * HEADS * HEAD_DIM + places, mask=real, other=0.0)

    largest = tl.full([SHARED], float("-inf"), tl.float32)
    total = tl.zeros([SHARED], tl.float32)
    sum_ = tl.zeros([SHARED, DIMS], tl.float32)
    for at in range(begin, end, KEYS):
        positions = at + tl.arange(0, KEYS)
        seen = positions < end
        blocks = tl.load(table + positions // BLOCK_SIZE, mask=seen, other=0).to(tl.int64)
        slots = (blocks * BLOCK_SIZE + positions % BLOCK_SIZE) * KV_HEADS + kv_head
        there = seen[:, None] & (dims < HEAD_DIM)[None, :]
        found = slots[:, None] * HEAD_DIM + dims[None, :]
        key = tl.load(keys + found, mask=there, other=0.0)
        scores = tl.dot(own, tl.trans(key), input_precision="ieee") * scale
        scores = tl.where(seen[None, :], scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        shares = tl.exp2(scores - larger[:, None])
        fade = tl.exp2(largest - larger)
        value = tl.load(values + found, mask=there, other=0.0)
        sum_ = sum_ * fade[:, None] + tl.dot(shares.to(value.dtype), value, input_precision="ieee")
        total = total * fade + tl.sum(shares, 1)
        largest = larger
    # Of a split without keys the weight is exp2(-inf); its sum is 0 and must not become 0 / 0.
    rest = (row * HEADS + heads) * splits + split
    alive = shared < HEADS // KV_HEADS
    tl.store(sums + rest[:, None] * HEAD_DIM + dims[None, :], sum_ / tl.maximum(total, 1e-37)[:, None], real)
    tl.store(weights + rest, tl.where(total > 0, largest + tl.log2(tl.maximum(total, 1e-37)), largest), alive)


@kernel
def _join(
    sums: tl.tensor,
    weights: tl.tensor,
    tokens: tl.tensor,
    out: tl.tensor,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIMS: tl.constexpr,
    SPLITS: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    head = tl.program_id(1)
    splits = tl.arange(0, SPLITS)
    dims = tl.arange(0, DIMS)
    real = dims < HEAD_DIM
    rest = (row * HEADS + head) * SPLITS + splits
    logs = tl.load(weights + rest)
    largest = tl.max(logs, 0)
    shares = tl.exp2(logs - tl.where(largest == float("-inf"), 0.0, largest))
    parts = tl.load(sums + rest[:, None] * HEAD_DIM + dims[None, :], mask=real[None, :], other=0.0)
    joined = tl.sum(parts * shares[:, None], 0) / tl.maximum(tl.sum(shares, 0), 1e-37)
    place = (tl.load(tokens + row) * HEADS + head) * HEAD_DIM
    tl.store(out + place + dims, joined.to(out.dtype.element_ty), mask=real)  # pyright: ignore[reportAttributeAccessIssue]


@kernel
def _attend_chunk(
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    tables: tl.tensor,
    width: tl.tensor,
    tiles: tl.tensor,
    out: tl.tensor,
    scale: tl.tensor,
    WINDOW: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
) -> None:
    tile = tiles + tl.program_id(0) * 4
    head = tl.program_id(1)
    kv_head = head // (HEADS // KV_HEADS)
    table = tables + tl.load(tile) * tl.load(width)
    token = tl.load(tile + 1)
    start = tl.load(tile + 2)
    count = tl.load(tile + 3)
    end = start + count

    dims = tl.arange(0, DIMS)
    offsets = tl.arange(0, QUERIES)
    own_positions = start + offsets
    real = (offsets < count)[:, None] & (dims < HEAD_DIM)[None, :]
    places = ((token + offsets) * HEADS + head)[:, None] * HEAD_DIM + dims[None, :]
    own = tl.load(query + places, mask=real, other=0.0)

    largest = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    sum_ = tl.zeros([QUERIES, DIMS], tl.float32)
    first = tl.maximum(start - WINDOW + 1, 0) // KEYS * KEYS if WINDOW else 0
    for at in range(first, end, KEYS):
        positions = at + tl.arange(0, KEYS)
        there = positions < end
        blocks = tl.load(table + positions // BLOCK_SIZE, mask=there, other=0).to(tl.int64)
        slots = (blocks * BLOCK_SIZE + positions % BLOCK_SIZE) * KV_HEADS + kv_head
        found = slots[:, None] * HEAD_DIM + dims[None, :]
        inside = there[:, None] & (dims < HEAD_DIM)[None, :]
        key = tl.load(keys + found, mask=inside, other=0.0)
        scores = tl.dot(own, tl.trans(key), input_precision="ieee") * scale
        seen = positions[None, :] <= own_positions[:, None]
        if WINDOW:
            seen = seen & (positions[None, :] > own_positions[:, None] - WINDOW)
        scores = tl.where(seen, scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        # A query that has seen no key yet, because the window of an earlier one begins here, keeps 0.
        shift = tl.where(larger == float("-inf"), 0.0, larger)
        shares = tl.exp2(scores - shift[:, None])
        fade = tl.exp2(largest - shift)
        value = tl.load(values + found, mask=inside, other=0.0)
        sum_ = sum_ * fade[:, None] + tl.dot(shares.to(value.dtype), value, input_precision="ieee")
        total = total * fade + tl.sum(shares, 1)
        largest = larger
    # A padded query may have seen nothing at all.
    tl.store(out + places, (sum_ / tl.maximum(total, 1e-37)[:, None]).to(out.dtype.element_ty), mask=real)  # pyright: ignore[reportAttributeAccessIssue]
