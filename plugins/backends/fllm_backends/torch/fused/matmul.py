"""Products of quantized activations with packed weights."""

from __future__ import annotations

from typing import Any

from fllm_backends.torch.fused import simd_kernels
from fllm_backends.torch.fused.intrinsics import address
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.packing import GROUP, PANEL, RECORD_4
from fllm_backends.torch.fused.simd_kernels import SCALE_BYTES, Activation
from fllm_backends.torch.fused.target import TARGET
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase, units_per_piece

ROWS = 64
"""Rows of activations that stay in the cache while the weights are streamed."""
PLANES_8_BIT, PLANES_15_BIT = 1, 2
"""Bytes of a quantized activation.

The output of a norm has a few channels much larger than the others, so it is quantized to 15 bits.
"""

silu_and_mul = simd_kernels.activate_and_mul(TARGET, Activation.SILU)
gelu_tanh_and_mul = simd_kernels.activate_and_mul(TARGET, Activation.GELU_TANH)
SILU = int(Activation.SILU)


def make_panel_matmul(bits: int, planes: int) -> Any:
    """Make the product of any number of rows of activations with one panel. All pointers are addresses."""
    by_8, by_4, by_1 = (simd_kernels.panel_matmul(TARGET, rows, bits, planes) for rows in (8, 4, 1))
    group_bytes = GROUP * planes

    @kernel(fastmath=False)
    def panel_matmul(
        a: Any, scales: Any, rows: Any, panel: Any, groups: Any, bias: Any, out: Any, stride: Any, add: Any
    ) -> None:
        a_stride, scales_stride = groups * group_bytes, groups * SCALE_BYTES
        while rows > 0:
            arguments = (a, a_stride, scales, scales_stride, panel, groups, bias, out, stride, add)
            if rows >= 8:
                by_8(arguments)
                done = 8
            elif rows >= 4:
                by_4(arguments)
                done = 4
            else:
                by_1(arguments)
                done = 1
            rows -= done
            a, scales, out = a + done * a_stride, scales + done * scales_stride, out + done * stride

    return panel_matmul


matmul_w4_a15, matmul_w8_a15, matmul_w4_a8, matmul_w8_a8 = (
    make_panel_matmul(bits, planes) for planes in (PLANES_15_BIT, PLANES_8_BIT) for bits in (4, 8)
)


@kernel(fastmath=False)
def panel_matmul(
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
    """Multiply with one panel, for weights and activations of any width."""
    if planes == PLANES_15_BIT and record == RECORD_4:
        matmul_w4_a15(a, scales, rows, panel, groups, bias, out, stride, add)
    elif planes == PLANES_15_BIT:
        matmul_w8_a15(a, scales, rows, panel, groups, bias, out, stride, add)
    elif record == RECORD_4:
        matmul_w4_a8(a, scales, rows, panel, groups, bias, out, stride, add)
    else:
        matmul_w8_a8(a, scales, rows, panel, groups, bias, out, stride, add)


@kernel(fastmath=False)
def linear(a: Any, scales: Any, matrices: Any, layer: Any, out: Any, add: Any, team: Any, phase: Any) -> None:
    """Compute ``out = a @ matrix.T + bias``, or ``out +=`` that if ``add`` is 1."""
    rows, groups = scales.shape[0], scales.shape[1]
    a_stride, planes = a.shape[1], a.shape[1] // (groups * GROUP)
    panels, record = matrices.bias.shape[1] // PANEL, matrices.record_bytes[layer]
    per_piece = units_per_piece(panels, team)
    pieces, stride = -(-panels // per_piece), out.shape[1] * 4
    blocks = -(-rows // ROWS)
    completed = 0
    while True:
        index = claim_piece(team, phase)
        if index >= pieces * blocks:
            break
        completed += 1
        block, first = index // pieces * ROWS, index % pieces * per_piece
        for panel in range(first, min(first + per_piece, panels)):
            panel_matmul(
                address(a) + block * a_stride,
                address(scales) + block * groups * SCALE_BYTES,
                min(ROWS, rows - block),
                planes,
                record,
                matrices.addresses[layer] + panel * groups * record,
                groups,
                address(matrices.bias[layer]) + panel * PANEL * 4,
                address(out) + block * stride + panel * PANEL * 4,
                stride,
                add,
            )
    finish_phase(team, phase, completed, pieces * blocks)


@kernel(fastmath=False)
def activate_and_mul_group(activation: Any, gates: Any, out: Any, scales: Any) -> None:
    """Compute activation(gate) * up of one group, quantized; the ups are after the gates."""
    arguments = (gates, gates + 4 * GROUP, out, scales)
    if activation == SILU:
        silu_and_mul(arguments)
    else:
        gelu_tanh_and_mul(arguments)


@kernel(fastmath=False)
def gate_up(
    a: Any,
    scales: Any,
    matrices: Any,
    layer: Any,
    activation: Any,
    buffers: Any,
    out: Any,
    out_scales: Any,
    team: Any,
    phase: Any,
) -> None:
    """Compute activation(a @ gate.T) * (a @ up.T), quantized.

    Gate and up are the two halves of one matrix.
    """
    rows, groups = scales.shape[0], scales.shape[1]
    a_stride, planes = a.shape[1], a.shape[1] // (groups * GROUP)
    inner, record, buffer = out.shape[1], matrices.record_bytes[layer], buffers[team.thread]
    size = groups * record
    per_piece = units_per_piece(inner // GROUP, team)
    pieces, stride = -(-(inner // GROUP) // per_piece), 8 * GROUP
    blocks = -(-rows // ROWS)
    completed = 0
    while True:
        index = claim_piece(team, phase)
        if index >= pieces * blocks:
            break
        completed += 1
        block, first = index // pieces * ROWS, index % pieces * per_piece
        count = min(ROWS, rows - block)
        for piece in range(first, min(first + per_piece, inner // GROUP)):
            for part in range(4):  # two panels of gate, two of up
                column = piece * GROUP + part % 2 * PANEL + part // 2 * inner
                panel_matmul(
                    address(a) + block * a_stride,
                    address(scales) + block * groups * SCALE_BYTES,
                    count,
                    planes,
                    record,
                    matrices.addresses[layer] + column // PANEL * size,
                    groups,
                    address(matrices.bias[layer]) + column * 4,
                    address(buffer) + part * PANEL * 4,
                    stride,
                    0,
                )
            for row in range(count):
                gates = address(buffer) + row * stride
                activate_and_mul_group(
                    activation,
                    gates,
                    address(out[block + row]) + piece * GROUP,
                    address(out_scales[block + row]) + piece * SCALE_BYTES,
                )
    finish_phase(team, phase, completed, pieces * blocks)
