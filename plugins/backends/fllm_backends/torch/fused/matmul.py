"""Activations times packed weights, piece by piece."""

from __future__ import annotations

from typing import Any

from fllm_backends.torch.fused import simd_kernels
from fllm_backends.torch.fused.intrinsics import address
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.packing import GROUP, PANEL, RECORD_4
from fllm_backends.torch.fused.simd_kernels import SCALES
from fllm_backends.torch.fused.target import TARGET
from fllm_backends.torch.fused.thread_team import at_once, finish, take

ROWS = 64
"""Rows of activations that stay in the cache while the weights pass by."""
COARSE, FINE = 1, 2
"""Bytes of an activation: what comes out of a norm has a few channels much larger than the others, and is
rounded more finely."""

gate_group = simd_kernels.gate(TARGET)


def product_of(bits: int, planes: int) -> Any:
    """Products of any number of rows of activations with one panel; all places are addresses."""
    by_8, by_4, by_1 = (simd_kernels.product(TARGET, rows, bits, planes) for rows in (8, 4, 1))
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
def project(a: Any, scales: Any, bank: Any, layer: Any, out: Any, add: Any, team: Any, phase: Any) -> None:
    """``out = a @ matrix.T + bias``, or ``out +=`` that."""
    rows, groups = scales.shape[0], scales.shape[1]
    line, planes = a.shape[1], a.shape[1] // (groups * GROUP)
    panels, record = bank.bias.shape[1] // PANEL, bank.records[layer]
    many = at_once(panels, team)
    pieces, stride = -(-panels // many), out.shape[1] * 4
    blocks = -(-rows // ROWS)
    mine = 0
    while True:
        turn = take(team, phase)
        if turn >= pieces * blocks:
            break
        mine += 1
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
    finish(team, phase, mine, pieces * blocks)


@kernel(fast=False)
def gate(
    a: Any,
    scales: Any,
    bank: Any,
    layer: Any,
    rooms: Any,
    out: Any,
    out_scales: Any,
    team: Any,
    phase: Any,
) -> None:
    """silu(a @ gate.T) * (a @ up.T), rounded; gate and up are the two halves of one matrix."""
    rows, groups = scales.shape[0], scales.shape[1]
    line, planes = a.shape[1], a.shape[1] // (groups * GROUP)
    inner, record, room = out.shape[1], bank.records[layer], rooms[team.thread]
    size = groups * record
    many = at_once(inner // GROUP, team)
    pieces, stride = -(-(inner // GROUP) // many), 8 * GROUP
    blocks = -(-rows // ROWS)
    mine = 0
    while True:
        turn = take(team, phase)
        if turn >= pieces * blocks:
            break
        mine += 1
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
    finish(team, phase, mine, pieces * blocks)
