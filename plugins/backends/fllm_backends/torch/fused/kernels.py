"""A decoder's layers on int8 weights, written for one thread of several.

All threads run `forward` over the same arrays, each on its share, and meet between phases. The activations of
a token are rounded to int16, so finely that only the rounding of the weights counts. Sums of a row never
depend on other rows: a sequence's result is the same, to the bit, alone and in any batch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fllm_backends.torch.fused.compiled import kernel
from fllm_backends.torch.fused.intrinsics import (
    atomic_add,
    atomic_load,
    emit_exponential,
    give_way,
    keys_1,
    keys_4,
    pause,
    tile_1x4,
    tile_4x2,
    values_1,
    values_4,
)
from fllm_backends.torch.fused.packing import Packed

ROWS_AT_ONCE = 64
"""Rows of activations that stay in the cache while the weights pass by."""
PATIENCE = 2000
"""Rounds of waiting before the core is given away."""
LARGEST = np.float32(32767)

single = np.float32


@kernel(fast=False)
def share(total: Any, unit: Any, thread: Any, threads: Any) -> Any:
    """A thread's part of a range, in multiples of ``unit``."""
    units = (total + unit - 1) // unit
    start, end = units * thread // threads * unit, units * (thread + 1) // threads * unit
    return min(start, total), min(end, total)


@kernel(fast=False)
def meet(barrier: Any, reached: Any, threads: Any) -> Any:
    """Wait until all threads are here; ``reached`` is the count of arrivals before, the result that after."""
    target = reached + threads
    atomic_add(barrier.ctypes.data, 1)
    waited = 0
    while atomic_load(barrier.ctypes.data) < target:
        pause()
        waited += 1
        if waited > PATIENCE:
            give_way()
    return target


@kernel(fast=False)
def exponential(x: Any) -> Any:
    """e^x; reordering would undo its rounding."""
    return emit_exponential(x)


@kernel()
def normalize(x: Any, weight: Any, eps: Any, out: Any) -> None:
    """RMSNorm of one row."""
    total = single(0)
    for i in range(len(x)):
        total += x[i] * x[i]
    scale = single(1) / math.sqrt(total / single(len(x)) + eps)
    for i in range(len(x)):
        out[i] = x[i] * scale * weight[i]


@kernel()
def quantize(x: Any, out: Any) -> Any:
    """Round one row to int16, by its largest value; gives what 1 is worth."""
    largest = single(0)
    for i in range(len(x)):
        largest = max(largest, abs(x[i]))
    scale = LARGEST / largest if largest > 0 else single(0)
    for i in range(len(x)):
        scaled = x[i] * scale
        out[i] = np.int16(scaled + math.copysign(single(0.5), scaled))
    return largest / LARGEST


@kernel()
def quantize_rows(x: Any, out: Any, scales: Any, thread: Any, threads: Any) -> None:
    """Round this thread's rows."""
    start, end = share(len(x), 1, thread, threads)
    for t in range(start, end):
        scales[t] = quantize(x[t], out[t])


@kernel()
def normalize_rows(
    x: Any, weight: Any, eps: Any, row: Any, out: Any, scales: Any, thread: Any, threads: Any
) -> None:
    """Normalize and round this thread's rows."""
    start, end = share(len(x), 1, thread, threads)
    for t in range(start, end):
        normalize(x[t], weight, eps, row)
        scales[t] = quantize(row, out[t])


@kernel(fast=False)
def of_layer(matrices: Any, layer: Any) -> Any:
    """One layer's matrix."""
    return Packed(matrices.weights[layer], matrices.scales[layer], matrices.bias[layer])


@kernel()
def product(
    a: Any, scales: Any, matrix: Any, out: Any, add: Any, tile: Any, thread: Any, threads: Any
) -> None:
    """``out = a @ matrix.T + bias``, or ``out +=`` that, for this thread's share of the columns."""
    rows, depth = a.shape
    groups = matrix.scales.shape[1]
    start, end = share(len(matrix.bias), 4, thread, threads)
    for block in range(0, rows, ROWS_AT_ONCE):
        stop = min(block + ROWS_AT_ONCE, rows)
        for n in range(start, end, 4):
            w = matrix.weights.ctypes.data + n * depth
            s = matrix.scales.ctypes.data + n * groups * 4
            m = block
            while m < stop:
                x = a.ctypes.data + m * depth * 2
                height = 4 if m + 4 <= stop else 1
                if height == 4:  # two tiles, side by side
                    tile_4x2(x, depth * 2, w, s, groups, tile.ctypes.data)
                    tile_4x2(x, depth * 2, w + 64, s + 8, groups, tile.ctypes.data + 32)
                else:
                    tile_1x4(x, depth * 2, w, s, groups, tile.ctypes.data)
                for r in range(height):
                    for c in range(4):
                        at = c // 2 * 8 + r * 2 + c % 2 if height == 4 else c
                        value = tile[at] * scales[m + r] + matrix.bias[n + c]
                        out[m + r, n + c] = value + out[m + r, n + c] if add else value
                m += height


@kernel()
def rotate_and_store(
    qkv: Any, batch: Any, shape: Any, w: Any, layer: Any, keys: Any, values: Any, thread: Any, threads: Any
) -> None:
    """Normalize heads (Qwen3), rotate them, and store the keys and values of this thread's tokens."""
    dim = keys.shape[2]
    half = dim // 2
    start, end = share(len(qkv), 1, thread, threads)
    for t in range(start, end):
        for h in range(shape.heads + shape.kv_heads):
            x = qkv[t, h * dim : (h + 1) * dim]
            if w.q_norm.shape[1]:
                normalize(x, w.q_norm[layer] if h < shape.heads else w.k_norm[layer], shape.eps, x)
            if w.rotary[layer]:
                for i in range(half):
                    first, second = x[i], x[i + half]
                    x[i] = first * batch.cosine[t, i] - second * batch.sine[t, i]
                    x[i + half] = second * batch.cosine[t, i] + first * batch.sine[t, i]
        for h in range(shape.kv_heads):
            key = (shape.heads + h) * dim
            value = key + shape.kv_heads * dim
            keys[batch.slots[t], h] = qkv[t, key : key + dim]
            values[batch.slots[t], h] = qkv[t, value : value + dim]


@kernel()
def attend_head(
    query: Any,
    head: Any,
    begin: Any,
    end: Any,
    table: Any,
    size: Any,
    keys: Any,
    values: Any,
    scores: Any,
    out: Any,
) -> None:
    """softmax(query @ keys / sqrt(dim)) @ values over the positions from ``begin`` to ``end`` of one row."""
    dim = len(query)
    stride = keys.shape[1] * dim * 4
    q, o, s = query.ctypes.data, out.ctypes.data, scores.ctypes.data
    for block in range(begin // size, (end + size - 1) // size):
        p, stop = max(begin, block * size), min(end, (block + 1) * size)
        base = keys.ctypes.data + head * dim * 4 + (table[block] - block) * size * stride
        while p + 4 <= stop:
            keys_4(q, base + p * stride, stride, dim * 4, s + p * 4)
            p += 4
        while p < stop:
            keys_1(q, base + p * stride, stride, dim * 4, s + p * 4)
            p += 1
    total = softmax(scores[begin:end], single(1) / math.sqrt(single(dim)))
    out[:] = single(0)
    for block in range(begin // size, (end + size - 1) // size):
        p, stop = max(begin, block * size), min(end, (block + 1) * size)
        base = values.ctypes.data + head * dim * 4 + (table[block] - block) * size * stride
        while p + 4 <= stop:
            values_4(o, base + p * stride, stride, dim * 4, s + p * 4)
            p += 4
        while p < stop:
            values_1(o, base + p * stride, stride, dim * 4, s + p * 4)
            p += 1
    for i in range(dim):
        out[i] /= total


@kernel()
def softmax(scores: Any, scale: Any) -> Any:
    """Scores to weights, in place; gives the sum that they are yet to be divided by."""
    largest = scores[0]
    for i in range(len(scores)):
        largest = max(largest, scores[i])
    total = single(0)
    for i in range(len(scores)):
        weight = exponential((scores[i] - largest) * scale)
        scores[i] = weight
        total += weight
    return total


@kernel()
def attend(
    qkv: Any,
    batch: Any,
    shape: Any,
    window: Any,
    keys: Any,
    values: Any,
    scores: Any,
    out: Any,
    thread: Any,
    threads: Any,
) -> None:
    """Every head of every new token, each over its own row's blocks; the threads take turns."""
    dim = keys.shape[2]
    group = shape.heads // shape.kv_heads
    for task in range(thread, len(qkv) * shape.heads, threads):
        t, h = task // shape.heads, task % shape.heads
        end = batch.positions[t] + 1
        begin = max(0, end - window) if window > 0 else 0
        query, seen = qkv[t, h * dim : (h + 1) * dim], out[t, h * dim : (h + 1) * dim]
        table = batch.tables[batch.row_of[t]]
        attend_head(query, h // group, begin, end, table, shape.block_size, keys, values, scores, seen)


@kernel()
def gate(gate_up: Any, out: Any, thread: Any, threads: Any) -> None:
    """silu(gate) * up, for this thread's share of every row."""
    inner = out.shape[1]
    start, end = share(inner, 64, thread, threads)
    for t in range(len(out)):
        for i in range(start, end):
            x = gate_up[t, i]
            out[t, i] = x / (single(1) + exponential(-x)) * gate_up[t, inner + i]


@kernel(fast=False)
def forward(
    thread: Any,
    threads: Any,
    barrier: Any,
    shape: Any,
    w: Any,
    batch: Any,
    x: Any,
    keys: Any,
    values: Any,
    s: Any,
) -> None:
    """Run all layers over ``x`` ([tokens, hidden], in place): this thread's share."""
    scores, tile, row = s.scores[thread], s.tile[thread], s.row[thread]
    reached = 0
    for layer in range(len(keys)):
        normalize_rows(x, w.input_norm[layer], shape.eps, row, s.hidden, s.scales, thread, threads)
        reached = meet(barrier, reached, threads)
        product(s.hidden, s.scales, of_layer(w.qkv, layer), s.qkv, False, tile, thread, threads)
        reached = meet(barrier, reached, threads)
        rotate_and_store(s.qkv, batch, shape, w, layer, keys[layer], values[layer], thread, threads)
        reached = meet(barrier, reached, threads)
        attend(
            s.qkv, batch, shape, w.window[layer], keys[layer], values[layer], scores, s.seen, thread, threads
        )
        reached = meet(barrier, reached, threads)
        quantize_rows(s.seen, s.heads, s.scales, thread, threads)
        reached = meet(barrier, reached, threads)
        product(s.heads, s.scales, of_layer(w.output, layer), x, True, tile, thread, threads)
        reached = meet(barrier, reached, threads)
        normalize_rows(x, w.post_norm[layer], shape.eps, row, s.hidden, s.scales, thread, threads)
        reached = meet(barrier, reached, threads)
        product(s.hidden, s.scales, of_layer(w.gate_up, layer), s.gate_up, False, tile, thread, threads)
        reached = meet(barrier, reached, threads)
        gate(s.gate_up, s.inner, thread, threads)
        reached = meet(barrier, reached, threads)
        quantize_rows(s.inner, s.wide, s.scales, thread, threads)
        reached = meet(barrier, reached, threads)
        product(s.wide, s.scales, of_layer(w.down, layer), x, True, tile, thread, threads)
        reached = meet(barrier, reached, threads)


@kernel(fast=False)
def head(
    thread: Any, threads: Any, barrier: Any, eps: Any, norm: Any, matrix: Any, x: Any, out: Any, s: Any
) -> None:
    """Logits of [rows, hidden]: the final norm and the output head, this thread's share."""
    normalize_rows(x, norm, eps, s.row[thread], s.hidden, s.scales, thread, threads)
    meet(barrier, 0, threads)
    product(s.hidden, s.scales, matrix, out, False, s.tile[thread], thread, threads)
