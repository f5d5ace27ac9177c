"""The operations between the matrix products of a layer, each as one kernel."""

from __future__ import annotations

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch.cuda.jit import kernel
from fllm_backends.torch.model import RMSNorm

_COLUMNS = 1024


def rms_norm(x: Tensor, norm: RMSNorm) -> Tensor:
    """Normalize each row of [tokens, hidden]."""
    out = torch.empty_like(x)
    size = x.shape[1]
    _rms_norm[(len(x),)](
        x,
        norm.weight,
        out,
        norm.eps,
        SIZE=size,
        COLUMNS=triton.next_power_of_2(size),
        num_warps=8 if size > 2048 else 4,
    )
    return out


def norm_rope_and_cache(
    qkv: Tensor,
    norms: tuple[RMSNorm, RMSNorm] | None,
    rotation: tuple[Tensor, Tensor] | None,
    slots: Tensor,
    cache: tuple[Tensor, Tensor],
    a: Architecture,
) -> Tensor:
    """Normalize and rotate the heads of ``qkv``; store keys and values at their slots, return the queries.

    The queries are [tokens, heads, head_dim]. ``norms`` are those of queries and keys. ``rotation`` holds
    cosines and sines, [tokens, 1, head_dim / 2] float32 each.
    """
    query = qkv.new_empty((len(qkv), a.heads, a.head_dim))
    cosine, sine = rotation or (slots, slots)
    q_norm, k_norm = norms or (None, None)
    _norm_rope_and_cache[(len(qkv), a.heads + 2 * a.kv_heads)](
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


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """Return ``silu(gate) * up`` of [tokens, gate and up]."""
    size = gate_up.shape[1] // 2
    out = gate_up.new_empty((len(gate_up), size))
    _silu_and_mul[(len(out), triton.cdiv(size, _COLUMNS))](gate_up, out, SIZE=size, COLUMNS=_COLUMNS)
    return out


@kernel
def _rms_norm(
    x: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * SIZE
    columns = tl.arange(0, COLUMNS)
    mask = columns < SIZE
    x_row = tl.load(x + row + columns, mask=mask, other=0.0).to(tl.float32)
    rms_inverse = tl.rsqrt(tl.sum(x_row * x_row, 0) / SIZE + eps)
    scale = tl.load(weight + columns, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row + columns, (x_row * rms_inverse * scale).to(out.dtype.element_ty), mask=mask)  # pyright: ignore[reportAttributeAccessIssue]


@kernel
def _norm_rope_and_cache(
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
    mask = pairs < HALF
    start = qkv + (token * (HEADS + 2 * KV_HEADS) + head) * 2 * HALF + pairs
    first = tl.load(start, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(start + HALF, mask=mask, other=0.0).to(tl.float32)
    if head < HEADS + KV_HEADS:
        if NORM:
            rms_inverse = tl.rsqrt(tl.sum(first * first + second * second, 0) / (2 * HALF) + eps)
            weight = (q_norm if head < HEADS else k_norm) + pairs
            first = first * rms_inverse * tl.load(weight, mask=mask, other=0.0).to(tl.float32)
            second = second * rms_inverse * tl.load(weight + HALF, mask=mask, other=0.0).to(tl.float32)
        if ROTATE:
            c = tl.load(cosine + token * HALF + pairs, mask=mask, other=0.0)
            s = tl.load(sine + token * HALF + pairs, mask=mask, other=0.0)
            first, second = first * c - second * s, second * c + first * s
    slot = tl.load(slots + token).to(tl.int64)
    if head < HEADS:
        out = query + (token * HEADS + head) * 2 * HALF + pairs
    elif head < HEADS + KV_HEADS:
        out = keys + (slot * KV_HEADS + head - HEADS) * 2 * HALF + pairs
    else:
        out = values + (slot * KV_HEADS + head - HEADS - KV_HEADS) * 2 * HALF + pairs
    mask = pairs < tl.where((slot >= 0) | (head < HEADS), HALF, 0)
    tl.store(out, first.to(out.dtype.element_ty), mask=mask)
    tl.store(out + HALF, second.to(out.dtype.element_ty), mask=mask)


@kernel
def _silu_and_mul(gate_up: tl.tensor, out: tl.tensor, SIZE: tl.constexpr, COLUMNS: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = columns < SIZE
    gate = tl.load(gate_up + row * 2 * SIZE + columns, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * SIZE + SIZE + columns, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * SIZE + columns, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask)  # pyright: ignore[reportAttributeAccessIssue]
