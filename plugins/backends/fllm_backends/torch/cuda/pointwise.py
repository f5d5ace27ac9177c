"""What lies between the matrix products of a layer, each in one kernel."""

from __future__ import annotations

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch.cuda.jit import kernel
from fllm_backends.torch.model import RMSNorm

_COLUMNS = 1024


def normalize(x: Tensor, norm: RMSNorm) -> Tensor:
    """The norm of each row of [tokens, hidden]."""
    out = torch.empty_like(x)
    size = x.shape[1]
    _normalize[(len(x),)](
        x,
        norm.weight,
        out,
        norm.eps,
        SIZE=size,
        COLUMNS=triton.next_power_of_2(size),
        num_warps=8 if size > 2048 else 4,
    )
    return out


def place_heads(
    qkv: Tensor,
    norms: tuple[RMSNorm, RMSNorm] | None,
    rotation: tuple[Tensor, Tensor] | None,
    slots: Tensor,
    cache: tuple[Tensor, Tensor],
    a: Architecture,
) -> Tensor:
    """The queries of a product, [tokens, heads, head_dim]; its keys and values go to their slots.

    ``norms``: of queries and keys. ``rotation``: cosines and sines, [tokens, 1, head_dim / 2] float32 each.
    """
    query = qkv.new_empty((len(qkv), a.heads, a.head_dim))
    cosine, sine = rotation or (slots, slots)
    q_norm, k_norm = norms or (None, None)
    _place_heads[(len(qkv), a.heads + 2 * a.kv_heads)](
        qkv,
        q_norm.weight if q_norm else qkv,
        k_norm.weight if k_norm else qkv,
        a.norm_eps,
        cosine,
        sine,
        slots,
        query,
        *cache,
        NORM=norms is not None,
        ROTATE=rotation is not None,
        HEADS=a.heads,
        KV_HEADS=a.kv_heads,
        HALF=a.head_dim // 2,
        PAIRS=triton.next_power_of_2(a.head_dim // 2),
        num_warps=1,
    )
    return query


def gate(gate_up: Tensor) -> Tensor:
    """``silu(gate) * up`` of [tokens, gate and up]."""
    size = gate_up.shape[1] // 2
    out = gate_up.new_empty((len(gate_up), size))
    _gate[(len(out), triton.cdiv(size, _COLUMNS))](gate_up, out, SIZE=size, COLUMNS=_COLUMNS)
    return out


@kernel
def _normalize(
    x: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * SIZE
    columns = tl.arange(0, COLUMNS)
    real = columns < SIZE
    own = tl.load(x + row + columns, mask=real, other=0.0).to(tl.float32)
    root = tl.rsqrt(tl.sum(own * own, 0) / SIZE + eps)
    scale = tl.load(weight + columns, mask=real, other=0.0).to(tl.float32)
    tl.store(out + row + columns, (own * root * scale).to(out.dtype.element_ty), mask=real)  # pyright: ignore[reportAttributeAccessIssue]


@kernel
def _place_heads(
    qkv: tl.tensor,
    q_norm: tl.tensor,
    k_norm: tl.tensor,
    eps: tl.tensor,
    cosine: tl.tensor,
    sine: tl.tensor,
    slots: tl.tensor,
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    NORM: tl.constexpr,
    ROTATE: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    PAIRS: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    pairs = tl.arange(0, PAIRS)
    real = pairs < HALF
    start = qkv + (token * (HEADS + 2 * KV_HEADS) + head) * 2 * HALF + pairs
    first = tl.load(start, mask=real, other=0.0).to(tl.float32)
    second = tl.load(start + HALF, mask=real, other=0.0).to(tl.float32)
    if head < HEADS + KV_HEADS:
        if NORM:
            root = tl.rsqrt(tl.sum(first * first + second * second, 0) / (2 * HALF) + eps)
            weight = (q_norm if head < HEADS else k_norm) + pairs
            first = first * root * tl.load(weight, mask=real, other=0.0).to(tl.float32)
            second = second * root * tl.load(weight + HALF, mask=real, other=0.0).to(tl.float32)
        if ROTATE:
            c = tl.load(cosine + token * HALF + pairs, mask=real, other=0.0)
            s = tl.load(sine + token * HALF + pairs, mask=real, other=0.0)
            first, second = first * c - second * s, second * c + first * s
    slot = tl.load(slots + token).to(tl.int64)
    if head < HEADS:
        out = query + (token * HEADS + head) * 2 * HALF + pairs
    elif head < HEADS + KV_HEADS:
        out = keys + (slot * KV_HEADS + head - HEADS) * 2 * HALF + pairs
    else:
        out = values + (slot * KV_HEADS + head - HEADS - KV_HEADS) * 2 * HALF + pairs
    real = pairs < tl.where((slot >= 0) | (head < HEADS), HALF, 0)
    tl.store(out, first.to(out.dtype.element_ty), mask=real)
    tl.store(out + HALF, second.to(out.dtype.element_ty), mask=real)


@kernel
def _gate(gate_up: tl.tensor, out: tl.tensor, SIZE: tl.constexpr, COLUMNS: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    real = columns < SIZE
    opened = tl.load(gate_up + row * 2 * SIZE + columns, mask=real, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * SIZE + SIZE + columns, mask=real, other=0.0).to(tl.float32)
    tl.store(out + row * SIZE + columns, (opened * tl.sigmoid(opened) * up).to(out.dtype.element_ty), real)  # pyright: ignore[reportAttributeAccessIssue]
