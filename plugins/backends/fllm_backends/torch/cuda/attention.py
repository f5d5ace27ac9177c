"""Attention over the paged cache by block table, without gathering it.

Rows with one new token split their keys among many programs, and a second kernel combines the partial results
(flash-decoding); the queries that share a kv head are one tile. Rows with more new tokens are cut into tiles
of queries; each tile iterates over its keys once (FlashAttention-2, arXiv 2307.08691).
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
_PROGRAMS_PER_MULTIPROCESSOR = 2
_MAX_AHEAD_DIM = 128
"""Heads up to this size fit into shared memory twice."""


def decode_programs(device: torch.device) -> int:
    """Return how many programs keep a device busy; see `attend_decodes`."""
    if device.type != "cuda":
        return _PROGRAMS_PER_MULTIPROCESSOR
    return _PROGRAMS_PER_MULTIPROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count


def attend(
    query: Tensor,
    cache: tuple[Tensor, Tensor],
    batch: Batch,
    window: int | None,
    programs: int,
    scale: float | None = None,
) -> Tensor:
    """Attend with all rows of a batch; return [tokens, heads, head_dim].

    ``query`` is [tokens, heads, head_dim], ``cache`` holds the keys and values of the layer. ``scale`` is the
    factor of the scores, by default 1 / sqrt(head_dim).
    """
    out = torch.empty_like(query)
    log2_scale = _LOG2_E * (query.shape[2] ** -0.5 if scale is None else scale)
    if len(batch.decodes.tokens):
        attend_decodes(query, *cache, batch, window, programs, log2_scale, out)
    if len(batch.tiles):
        attend_chunks(query, *cache, batch, window, log2_scale, out)
    return out


def attend_decodes(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    batch: Batch,
    window: int | None,
    programs: int,
    log2_scale: float,
    out: Tensor,
) -> None:
    """Attend for rows with one new token; write [tokens, heads, head_dim] to ``out`` at their tokens.

    ``keys`` and ``values`` are [blocks, block_size, kv_heads, head_dim]. The keys of a row are split so that
    there are at least ``programs`` programs, regardless of the lengths: a CUDA graph has one grid for all
    lengths. ``log2_scale`` is the factor of the scores, times log2(e).
    """
    rows = len(batch.decodes.tokens)
    heads, head_dim = query.shape[1:]
    block_size, kv_heads = keys.shape[1:3]
    target_splits = -(-programs // (rows * kv_heads))
    splits = min(1 << (target_splits - 1).bit_length(), _MAX_SPLITS)  # a power of 2
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
        log2_scale,
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
    _combine_splits[(rows, heads)](
        sums, weights, batch.decodes.tokens, out, HEADS=heads, HEAD_DIM=head_dim, DIMS=dims, SPLITS=splits
    )


def attend_chunks(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    batch: Batch,
    window: int | None,
    log2_scale: float,
    out: Tensor,
) -> None:
    """Attend for rows with several new tokens; write [tokens, heads, head_dim] to ``out`` at their tokens."""
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
        log2_scale,
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
    """Return the number of tiles of keys to load ahead: as many as fit into shared memory."""
    return 1 if keys.element_size() == 4 or keys.shape[3] > _MAX_AHEAD_DIM else 2


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
    valid = (shared < HEADS // KV_HEADS)[:, None] & (dims < HEAD_DIM)[None, :]
    places = heads[:, None] * HEAD_DIM + dims[None, :]
    queries = tl.load(query + tl.load(tokens + row) * HEADS * HEAD_DIM + places, mask=valid, other=0.0)

    row_max = tl.full([SHARED], float("-inf"), tl.float32)
    denominator = tl.zeros([SHARED], tl.float32)
    acc = tl.zeros([SHARED, DIMS], tl.float32)
    for at in range(begin, end, KEYS):
        positions = at + tl.arange(0, KEYS)
        visible = positions < end
        blocks = tl.load(table + positions // BLOCK_SIZE, mask=visible, other=0).to(tl.int64)
        slots = (blocks * BLOCK_SIZE + positions % BLOCK_SIZE) * KV_HEADS + kv_head
        inside = visible[:, None] & (dims < HEAD_DIM)[None, :]
        kv_offsets = slots[:, None] * HEAD_DIM + dims[None, :]
        key = tl.load(keys + kv_offsets, mask=inside, other=0.0)
        scores = tl.dot(queries, tl.trans(key), input_precision="ieee") * scale
        scores = tl.where(visible[None, :], scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        probabilities = tl.exp2(scores - new_max[:, None])
        rescale = tl.exp2(row_max - new_max)
        value = tl.load(values + kv_offsets, mask=inside, other=0.0)
        acc = acc * rescale[:, None] + tl.dot(probabilities.to(value.dtype), value, input_precision="ieee")
        denominator = denominator * rescale + tl.sum(probabilities, 1)
        row_max = new_max
    # A split without keys has the weight exp2(-inf). Its sum is 0 and must not become 0 / 0.
    index = (row * HEADS + heads) * splits + split
    valid_head = shared < HEADS // KV_HEADS
    tl.store(
        sums + index[:, None] * HEAD_DIM + dims[None, :], acc / tl.maximum(denominator, 1e-37)[:, None], valid
    )
    tl.store(
        weights + index,
        tl.where(denominator > 0, row_max + tl.log2(tl.maximum(denominator, 1e-37)), row_max),
        valid_head,
    )


@kernel
def _combine_splits(
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
    valid = dims < HEAD_DIM
    index = (row * HEADS + head) * SPLITS + splits
    log_weights = tl.load(weights + index)
    row_max = tl.max(log_weights, 0)
    probabilities = tl.exp2(log_weights - tl.where(row_max == float("-inf"), 0.0, row_max))
    partials = tl.load(sums + index[:, None] * HEAD_DIM + dims[None, :], mask=valid[None, :], other=0.0)
    combined = tl.sum(partials * probabilities[:, None], 0) / tl.maximum(tl.sum(probabilities, 0), 1e-37)
    place = (tl.load(tokens + row) * HEADS + head) * HEAD_DIM
    tl.store(out + place + dims, combined.to(out.dtype.element_ty), mask=valid)  # pyright: ignore[reportAttributeAccessIssue]


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
    valid = (offsets < count)[:, None] & (dims < HEAD_DIM)[None, :]
    places = ((token + offsets) * HEADS + head)[:, None] * HEAD_DIM + dims[None, :]
    queries = tl.load(query + places, mask=valid, other=0.0)

    row_max = tl.full([QUERIES], float("-inf"), tl.float32)
    denominator = tl.zeros([QUERIES], tl.float32)
    acc = tl.zeros([QUERIES, DIMS], tl.float32)
    first = tl.maximum(start - WINDOW + 1, 0) // KEYS * KEYS if WINDOW else 0
    for at in range(first, end, KEYS):
        positions = at + tl.arange(0, KEYS)
        key_mask = positions < end
        blocks = tl.load(table + positions // BLOCK_SIZE, mask=key_mask, other=0).to(tl.int64)
        slots = (blocks * BLOCK_SIZE + positions % BLOCK_SIZE) * KV_HEADS + kv_head
        kv_offsets = slots[:, None] * HEAD_DIM + dims[None, :]
        inside = key_mask[:, None] & (dims < HEAD_DIM)[None, :]
        key = tl.load(keys + kv_offsets, mask=inside, other=0.0)
        scores = tl.dot(queries, tl.trans(key), input_precision="ieee") * scale
        visible = positions[None, :] <= own_positions[:, None]
        if WINDOW:
            visible = visible & (positions[None, :] > own_positions[:, None] - WINDOW)
        scores = tl.where(visible, scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        # A query that has seen no key yet, because the window of an earlier one begins here, keeps 0.
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
        probabilities = tl.exp2(scores - shift[:, None])
        rescale = tl.exp2(row_max - shift)
        value = tl.load(values + kv_offsets, mask=inside, other=0.0)
        acc = acc * rescale[:, None] + tl.dot(probabilities.to(value.dtype), value, input_precision="ieee")
        denominator = denominator * rescale + tl.sum(probabilities, 1)
        row_max = new_max
    # A padded query may have seen no key at all.
    attended = acc / tl.maximum(denominator, 1e-37)[:, None]
    tl.store(out + places, attended.to(out.dtype.element_ty), mask=valid)  # pyright: ignore[reportAttributeAccessIssue]
