"""A decoder's layers on packed weights, written for one thread of several.

All threads run `forward` over the same arrays. Within a phase each takes the next piece of work that nobody
has begun, so that one whose core is busy with something else delays nobody; between phases they meet.
Activations are rounded in groups of 32, like the weights. No sum depends on how the work is cut or on other
rows: a sequence's result is the same, to the bit, alone and in any batch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fllm_backends.torch.fused import tiles
from fllm_backends.torch.fused.compiled import kernel
from fllm_backends.torch.fused.intrinsics import (
    address,
    as_half,
    atomic_add,
    atomic_load,
    byte_at,
    give_way,
    half_at,
    pause,
)
from fllm_backends.torch.fused.packing import GROUP, PANEL, RECORD_4, RECORD_8, TAIL
from fllm_backends.torch.fused.target import AVX2, targets
from fllm_backends.torch.fused.tiles import SCALES

TARGET = (*targets(), AVX2)[0]
ROWS = 64
"""Rows of activations that stay in the cache while the weights pass by."""
PHASES = 6
"""Of a layer, between which the threads meet."""
PATIENCE = 2000
"""Rounds of waiting before the core is given away."""
COARSE, FINE = 1, 2
"""Planes of 8 bits that activations have: what comes out of a norm has a few channels much larger than
the others, and is rounded more finely."""

single = np.float32

score_8, score_4 = tiles.score(TARGET, 8), tiles.score(TARGET, 4)
mix_4 = tiles.mix(TARGET, 4)
soften, gate_group = tiles.soften(TARGET), tiles.gate(TARGET)
round_fine, round_coarse = tiles.round_groups(TARGET, FINE), tiles.round_groups(TARGET, COARSE)


@kernel(fast=False)
def meet(barrier: Any, reached: Any, threads: Any) -> Any:
    """Wait until all threads are here; ``reached`` is the count of arrivals before, the result that after."""
    target = reached + threads
    atomic_add(address(barrier), 1)
    waited = 0
    while atomic_load(address(barrier)) < target:
        pause()
        waited += 1
        if waited > PATIENCE:
            give_way()
    return target


@kernel(fast=False)
def take(turns: Any, phase: Any) -> Any:
    """The next piece of a phase's work."""
    return atomic_add(address(turns) + 8 * phase, 1)


@kernel(fast=False)
def panels_at_once(panels: Any, threads: Any) -> Any:
    """How many to take in one turn: few enough that the threads end together."""
    return min(max(panels // (8 * threads), 1), 32)


def product_of(bits: int, planes: int) -> Any:
    """Products of any number of rows of activations with one panel; all places are addresses."""
    by_8, by_4, by_2, by_1 = (tiles.product(TARGET, rows, bits, planes) for rows in (8, 4, 2, 1))
    deep = GROUP * planes

    @kernel(fast=False)
    def product(
        a: Any, scales: Any, rows: Any, panel: Any, groups: Any, bias: Any, out: Any, stride: Any, add: Any
    ) -> None:
        line, wide = groups * deep, groups * SCALES
        while rows > 0:
            here = (a, line, scales, wide, panel, groups, bias, out, stride, add)
            if rows >= 8:
                by_8(here)
                done = 8
            elif rows >= 4:
                by_4(here)
                done = 4
            elif rows >= 2:
                by_2(here)
                done = 2
            else:
                by_1(here)
                done = 1
            rows -= done
            a, scales, out = a + done * line, scales + done * wide, out + done * stride

    return product


fine_4, fine_8, coarse_4, coarse_8 = (
    product_of(bits, planes) for planes in (FINE, COARSE) for bits in (4, 8)
)


@kernel(fast=False)
def product(
    a: Any,
    scales: Any,
    rows: Any,
    planes: Any,
    record: Any,
    panel: Any,
    groups: Any,
    bias: Any,
    out: Any,
    stride: Any,
    add: Any,
) -> None:
    """The same, for weights and activations of any kind."""
    if planes == FINE and record == RECORD_4:
        fine_4(a, scales, rows, panel, groups, bias, out, stride, add)
    elif planes == FINE:
        fine_8(a, scales, rows, panel, groups, bias, out, stride, add)
    elif record == RECORD_4:
        coarse_4(a, scales, rows, panel, groups, bias, out, stride, add)
    else:
        coarse_8(a, scales, rows, panel, groups, bias, out, stride, add)


@kernel(fast=False)
def project(
    a: Any, scales: Any, bank: Any, layer: Any, out: Any, add: Any, turns: Any, phase: Any, threads: Any
) -> None:
    """``out = a @ matrix.T + bias``, or ``out +=`` that."""
    rows, groups = scales.shape[0], scales.shape[1]
    line, planes = a.shape[1], a.shape[1] // (groups * GROUP)
    panels, record = bank.bias.shape[1] // PANEL, bank.records[layer]
    many = panels_at_once(panels, threads)
    pieces, stride = -(-panels // many), out.shape[1] * 4
    blocks = -(-rows // ROWS)
    while True:
        turn = take(turns, phase)
        if turn >= pieces * blocks:
            return
        block, first = turn // pieces * ROWS, turn % pieces * many
        for panel in range(first, min(first + many, panels)):
            product(
                address(a) + block * line,
                address(scales) + block * groups * SCALES,
                min(ROWS, rows - block),
                planes,
                record,
                bank.places[layer] + panel * groups * record,
                groups,
                address(bank.bias[layer]) + panel * PANEL * 4,
                address(out) + block * stride + panel * PANEL * 4,
                stride,
                add,
            )


@kernel(fast=False)
def gate(
    a: Any,
    scales: Any,
    bank: Any,
    layer: Any,
    room: Any,
    out: Any,
    out_scales: Any,
    turns: Any,
    phase: Any,
    threads: Any,
) -> None:
    """silu(a @ gate.T) * (a @ up.T), rounded; gate and up are the two halves of one matrix."""
    rows, groups = scales.shape[0], scales.shape[1]
    line, planes = a.shape[1], a.shape[1] // (groups * GROUP)
    inner, record = out.shape[1], bank.records[layer]
    size = groups * record
    many = panels_at_once(inner // GROUP, threads)
    pieces, stride = -(-(inner // GROUP) // many), 8 * GROUP
    blocks = -(-rows // ROWS)
    while True:
        turn = take(turns, phase)
        if turn >= pieces * blocks:
            return
        block, first = turn // pieces * ROWS, turn % pieces * many
        count = min(ROWS, rows - block)
        for piece in range(first, min(first + many, inner // GROUP)):
            for part in range(4):  # two panels of gates, two of what they let through
                column = piece * GROUP + part % 2 * PANEL + part // 2 * inner
                product(
                    address(a) + block * line,
                    address(scales) + block * groups * SCALES,
                    count,
                    planes,
                    record,
                    bank.places[layer] + column // PANEL * size,
                    groups,
                    address(bank.bias[layer]) + column * 4,
                    address(room) + part * PANEL * 4,
                    stride,
                    0,
                )
            for row in range(count):
                gates = address(room) + row * stride
                gate_group(
                    (
                        gates,
                        gates + 4 * GROUP,
                        address(out[block + row]) + piece * GROUP,
                        address(out_scales[block + row]) + piece * SCALES,
                    )
                )


@kernel()
def normalize(x: Any, weight: Any, eps: Any, out: Any) -> None:
    """RMSNorm of one row."""
    total = single(0)
    for i in range(len(x)):
        total += x[i] * x[i]
    scale = single(1) / math.sqrt(total / single(len(x)) + eps)
    for i in range(len(x)):
        out[i] = x[i] * scale * weight[i]


@kernel(fast=False)
def normalize_rows(
    x: Any, weight: Any, eps: Any, room: Any, out: Any, scales: Any, thread: Any, threads: Any
) -> None:
    """Normalize and round this thread's rows."""
    for t in range(thread, len(x), threads):
        normalize(x[t], weight, eps, room)
        round_fine((address(room), scales.shape[1], address(out[t]), address(scales[t])))


@kernel(fast=False)
def rotate(x: Any, cosine: Any, sine: Any) -> None:
    """Rotate one head by its position."""
    half = len(cosine)
    for i in range(half):
        first, second = x[i], x[i + half]
        x[i] = first * cosine[i] - second * sine[i]
        x[i + half] = second * cosine[i] + first * sine[i]


@kernel(fast=False)
def rotate_and_store(
    qkv: Any, batch: Any, shape: Any, w: Any, layer: Any, keys: Any, values: Any, thread: Any, threads: Any
) -> None:
    """Normalize heads (Qwen3), rotate them, and store the keys and values of this thread's tokens.

    Keys: [pages, kv_heads, head_dim, PANEL]; values: [pages, kv_heads, PANEL, head_dim]; float16.
    """
    dim = keys.shape[2]
    for t in range(thread, len(qkv), threads):
        page, place = batch.slots[t] // PANEL, batch.slots[t] % PANEL
        for h in range(shape.heads + shape.kv_heads):
            x = qkv[t, h * dim : (h + 1) * dim]
            if w.q_norm.shape[1]:
                normalize(x, w.q_norm[layer] if h < shape.heads else w.k_norm[layer], shape.eps, x)
            if w.rotary[layer]:
                rotate(x, batch.cosine[t], batch.sine[t])
        for h in range(shape.kv_heads):
            key = (shape.heads + h) * dim
            value = key + shape.kv_heads * dim
            for i in range(dim):
                keys[page, h, i, place] = as_half(qkv[t, key + i])
                values[page, h, place, i] = as_half(qkv[t, value + i])


@kernel(fast=False)
def attend(
    qkv: Any,
    batch: Any,
    shape: Any,
    window: Any,
    keys: Any,
    values: Any,
    s: Any,
    thread: Any,
    turns: Any,
    phase: Any,
) -> None:
    """All heads of all new tokens, in tiles of neighbouring tokens and the heads that share keys."""
    while True:
        turn = take(turns, phase)
        if turn >= len(batch.tiles) * shape.kv_heads:
            return
        # The last tiles of a prompt see the most keys: they come first.
        tile = batch.tiles[len(batch.tiles) - 1 - turn // shape.kv_heads]
        attend_tile(qkv, batch, shape, window, keys, values, s, thread, tile, turn % shape.kv_heads)


@kernel(fast=False)
def attend_tile(
    qkv: Any,
    batch: Any,
    shape: Any,
    window: Any,
    keys: Any,
    values: Any,
    s: Any,
    thread: Any,
    tile: Any,
    head: Any,
) -> None:
    """softmax(queries @ keys / sqrt(dim)) @ values for some tokens of one row and one kv head."""
    dim = keys.shape[2]
    shared = shape.heads // shape.kv_heads
    first, count, table = tile[0], tile[1], batch.tables[tile[2]]
    rows = count * shared
    padded = -(-rows // 4) * 4
    queries, scores, mixed, total = s.queries[thread], s.scores[thread], s.mixed[thread], s.total[thread]
    scale = single(1) / math.sqrt(single(dim))
    for t in range(count):
        for j in range(shared):
            at = (head * shared + j) * dim
            for i in range(dim):
                queries[t * shared + j, i] = qkv[first + t, at + i] * scale
    begin = 0 if window <= 0 else max(0, batch.positions[first] + 1 - window)
    begin = begin // PANEL * PANEL
    end = -(-(batch.positions[first + count - 1] + 1) // PANEL) * PANEL
    width = scores.shape[1]
    page = dim * PANEL * 2
    for p in range(begin, end, PANEL):
        at = address(keys) + (table[p // PANEL] * shape.kv_heads + head) * page
        row = 0
        while row < padded:
            here = (
                address(queries) + row * dim * 4,
                dim,
                at,
                address(scores) + (row * width + p - begin) * 4,
                width * 4,
            )
            if padded - row >= 8:
                score_8(here)
            else:
                score_4(here)
            row += 8 if padded - row >= 8 else 4
    for row in range(rows):
        position = batch.positions[first + row // shared]
        if window > 0:
            scores[row, : max(0, position + 1 - window - begin)] = -np.inf
        scores[row, position + 1 - begin : end - begin] = -np.inf
        soften((address(scores[row]), end - begin, address(total) + 4 * row))
    mixed[:padded] = single(0)
    for p in range(begin, end, PANEL):
        at = address(values) + (table[p // PANEL] * shape.kv_heads + head) * page
        for row in range(0, padded, 4):
            mix_4(
                (
                    address(scores) + (row * width + p - begin) * 4,
                    width * 4,
                    at,
                    dim,
                    address(mixed) + row * dim * 4,
                )
            )
    groups = dim // GROUP
    for row in range(rows):
        inverse = single(1) / total[row]
        for i in range(dim):
            mixed[row, i] *= inverse
        t, at = first + row // shared, (head * shared + row % shared) * groups
        round_coarse(
            (
                address(mixed[row]),
                groups,
                address(s.heads[t]) + at * GROUP,
                address(s.heads_scales[t]) + at * SCALES,
            )
        )


@kernel(fast=False)
def forward(
    thread: Any,
    threads: Any,
    barrier: Any,
    turns: Any,
    shape: Any,
    w: Any,
    batch: Any,
    x: Any,
    keys: Any,
    values: Any,
    s: Any,
) -> None:
    """Run all layers over ``x`` ([tokens, hidden], in place)."""
    room = s.row[thread]
    reached = 0
    for layer in range(len(keys)):
        phase = layer * PHASES
        normalize_rows(x, w.input_norm[layer], shape.eps, room, s.hidden, s.hidden_scales, thread, threads)
        reached = meet(barrier, reached, threads)
        project(s.hidden, s.hidden_scales, w.qkv, layer, s.qkv, 0, turns, phase, threads)
        reached = meet(barrier, reached, threads)
        rotate_and_store(s.qkv, batch, shape, w, layer, keys[layer], values[layer], thread, threads)
        reached = meet(barrier, reached, threads)
        attend(s.qkv, batch, shape, w.window[layer], keys[layer], values[layer], s, thread, turns, phase + 1)
        reached = meet(barrier, reached, threads)
        project(s.heads, s.heads_scales, w.output, layer, x, 1, turns, phase + 2, threads)
        reached = meet(barrier, reached, threads)
        normalize_rows(x, w.post_norm[layer], shape.eps, room, s.hidden, s.hidden_scales, thread, threads)
        reached = meet(barrier, reached, threads)
        gate(
            s.hidden,
            s.hidden_scales,
            w.gate_up,
            layer,
            s.gates[thread],
            s.wide,
            s.wide_scales,
            turns,
            phase + 3,
            threads,
        )
        reached = meet(barrier, reached, threads)
        project(s.wide, s.wide_scales, w.down, layer, x, 1, turns, phase + 4, threads)
        reached = meet(barrier, reached, threads)


@kernel(fast=False)
def logits(
    thread: Any,
    threads: Any,
    barrier: Any,
    turns: Any,
    eps: Any,
    norm: Any,
    matrix: Any,
    x: Any,
    out: Any,
    s: Any,
) -> None:
    """[rows, hidden] to [rows, vocabulary]: the final norm and the output head."""
    normalize_rows(x, norm, eps, s.row[thread], s.hidden, s.hidden_scales, thread, threads)
    meet(barrier, 0, threads)
    project(s.hidden, s.hidden_scales, matrix, 0, out, 0, turns, 0, threads)


@kernel(fast=False)
def choose(
    thread: Any,
    threads: Any,
    barrier: Any,
    turns: Any,
    eps: Any,
    norm: Any,
    matrix: Any,
    x: Any,
    best: Any,
    s: Any,
) -> None:
    """The greatest logit of each row among this thread's share of the head, and its place.

    ``best`` is [threads, rows]; each thread's turns ascend, so that the first of equals stays.
    """
    normalize_rows(x, norm, eps, s.row[thread], s.hidden, s.hidden_scales, thread, threads)
    meet(barrier, 0, threads)
    rows, groups = s.hidden_scales.shape[0], s.hidden_scales.shape[1]
    panels, record = matrix.bias.shape[1] // PANEL, matrix.records[0]
    many = panels_at_once(panels, threads)
    room = s.gates[thread]
    values, places = best.values[thread], best.places[thread]
    values[:] = -np.inf
    places[:] = 0
    while True:
        first = take(turns, 0) * many
        if first >= panels:
            return
        for panel in range(first, min(first + many, panels)):
            for block in range(0, rows, ROWS):
                count = min(ROWS, rows - block)
                product(
                    address(s.hidden) + block * groups * GROUP * FINE,
                    address(s.hidden_scales) + block * groups * SCALES,
                    count,
                    FINE,
                    record,
                    matrix.places[0] + panel * groups * record,
                    groups,
                    address(matrix.bias) + panel * PANEL * 4,
                    address(room),
                    PANEL * 4,
                    0,
                )
                for row in range(count):
                    for i in range(PANEL):
                        value = room[row * PANEL + i]
                        if value > values[block + row]:
                            values[block + row], places[block + row] = value, panel * PANEL + i


@kernel(fast=False)
def look_up(ids: Any, matrix: Any, out: Any) -> None:
    """The rows of a packed matrix, as they would be unpacked."""
    groups = out.shape[1] // GROUP
    record = matrix.records[0]
    for t in range(len(ids)):
        panel, column = ids[t] // PANEL, ids[t] % PANEL
        for group in range(groups):
            at = matrix.places[0] + (panel * groups + group) * record
            tail = at + record - TAIL + 2 * column
            step, low = half_at(tail), half_at(tail + 2 * PANEL)
            for i in range(GROUP):
                quad = i // 4
                if record == RECORD_8:
                    number = byte_at(at + quad * 4 * PANEL + column * 4 + i % 4)
                else:
                    both = byte_at(at + quad // 2 * 4 * PANEL + column * 4 + i % 4)
                    number = both & 15 if quad % 2 == 0 else both >> 4
                out[t, group * GROUP + i] = low + step * single(number)
