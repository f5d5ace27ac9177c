"""Products of quantized activations with packed weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from fllm_backends.torch.fused import simd_kernels
from fllm_backends.torch.fused.arrays import PackedMatrices
from fllm_backends.torch.fused.formats import FORMATS, GROUP, PANEL, Format
from fllm_backends.torch.fused.intrinsics import address
from fllm_backends.torch.fused.jit import c_function, kernel
from fllm_backends.torch.fused.packing import PackedMatrix, panel_addresses
from fllm_backends.torch.fused.simd_builder import INT64, SimdBuilder, intrinsic, unpack_integers
from fllm_backends.torch.fused.simd_kernels import SCALE_BYTES, Activation
from fllm_backends.torch.fused.target import TARGET
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase, units_per_piece

ROWS = 64
"""Rows of activations that stay in the cache while the weights are streamed."""
PLANES_8_BIT, PLANES_15_BIT = 1, 2
"""Bytes of a quantized activation.

The output of a norm has a few channels much larger than the others, so their groups are quantized to 15 bits
in two planes: see `simd_kernels.quantize_groups`.
"""

silu_and_mul = simd_kernels.activate_and_mul(TARGET, Activation.SILU)
gelu_and_mul = simd_kernels.activate_and_mul(TARGET, Activation.GELU)
gelu_tanh_and_mul = simd_kernels.activate_and_mul(TARGET, Activation.GELU_TANH)
SILU, GELU = int(Activation.SILU), int(Activation.GELU)

PANEL_ARGUMENTS = 10
"""Number of arguments of a `panel_kernel`."""


def packed_matrices(matrices: list[PackedMatrix], planes: int) -> PackedMatrices:
    """Return the matrices of one kind of all layers, for activations of ``planes`` bytes.

    The result holds addresses: the packed matrices must be kept as long as it is used.
    """
    panels, ends, kernels = [], [], []
    for matrix in matrices:
        counts = [len(part.panels) for part in matrix.parts]
        panels.append(panel_addresses(matrix))
        ends.append(np.repeat(np.cumsum(counts), counts))
        kernels.append(
            np.repeat([panel_kernel(part.format, planes).address for part in matrix.parts], counts)
        )
    bias = np.stack([matrix.bias for matrix in matrices])
    return PackedMatrices(np.stack(panels), np.stack(ends), np.stack(kernels), bias)


@cache
def panel_kernel(form: Format, planes: int) -> Any:
    """Return the product with consecutive panels. Compile it, or load what an earlier start compiled.

    It takes ``(a, scales, rows, panel, panels, groups, bias, out, stride, add)``: for any number of rows of
    quantized activations and of panels, see `simd_kernels.panel_matmul`.
    """
    # numba identifies what it has compiled by the closure: numbers are the same in each process.
    index, group_bytes = FORMATS.index(form), GROUP * planes
    block_groups, block_bytes = form.groups, form.block_bytes

    @c_function(types.void(*[types.intp] * PANEL_ARGUMENTS))
    def panel_matmul(
        a: Any,
        scales: Any,
        rows: Any,
        panel: Any,
        panels: Any,
        groups: Any,
        bias: Any,
        out: Any,
        stride: Any,
        add: Any,
    ) -> None:
        a_stride, scales_stride = groups * group_bytes, groups * SCALE_BYTES
        for _ in range(panels):
            row = 0
            while row < rows:
                arguments = (
                    a + row * a_stride,
                    a_stride,
                    scales + row * scales_stride,
                    scales_stride,
                    panel,
                    groups,
                    bias,
                    out + row * stride,
                    stride,
                    add,
                )
                left = rows - row
                if left >= 8:
                    multiply_rows(8, index, planes, arguments)
                    row += 8
                elif left >= 4:
                    multiply_rows(4, index, planes, arguments)
                    row += 4
                elif left == 3:
                    multiply_rows(3, index, planes, arguments)
                    row += 3
                elif left == 2:
                    multiply_rows(2, index, planes, arguments)
                    row += 2
                else:
                    multiply_rows(1, index, planes, arguments)
                    row += 1
            panel += groups // block_groups * block_bytes
            bias += PANEL * 4
            out += PANEL * 4

    return panel_matmul


@intrinsic(prefer_literal=True)
def multiply_rows(typingctx: Any, rows: Any, form: Any, planes: Any, arguments: Any) -> Any:  # noqa: ARG001
    """Multiply a constant number of rows with a panel in a constant format, see `panel_matmul`."""
    constants = rows.literal_value, FORMATS[form.literal_value], planes.literal_value

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit = simd_kernels.panel_matmul(TARGET, *constants)
        emit(SimdBuilder(builder, TARGET.width), *unpack_integers(context, builder, signature, values))
        return context.get_dummy_value()

    return types.void(rows, form, planes, arguments), codegen


@intrinsic
def call_panel_kernel(typingctx: Any, kernel: Any, arguments: Any) -> Any:  # noqa: ARG001
    """Call the `panel_kernel` at an address."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [INT64] * PANEL_ARGUMENTS)
        function = builder.inttoptr(values[0], kind.as_pointer())
        builder.call(function, unpack_integers(context, builder, signature, values))
        return context.get_dummy_value()

    return types.void(kernel, arguments), codegen


@kernel(fastmath=False)
def multiply_panels(
    matrices: Any,
    layer: Any,
    first: Any,
    last: Any,
    a: Any,
    scales: Any,
    rows: Any,
    groups: Any,
    bias: Any,
    out: Any,
    stride: Any,
    add: Any,
) -> None:
    """Multiply rows with the panels of a matrix from ``first`` to ``last``.

    ``bias`` and ``out`` are the addresses of what belongs to the first panel.
    """
    panel = first
    while panel < last:
        end = min(last, matrices.ends[layer, panel])
        place = (panel - first) * PANEL * 4
        call_panel_kernel(
            matrices.kernels[layer, panel],
            (
                a,
                scales,
                rows,
                matrices.panels[layer, panel],
                end - panel,
                groups,
                bias + place,
                out + place,
                stride,
                add,
            ),
        )
        panel = end


@kernel(fastmath=False)
def linear(a: Any, scales: Any, matrices: Any, layer: Any, out: Any, add: Any, team: Any, phase: Any) -> None:
    """Compute ``out = a @ matrix.T + bias``, or ``out +=`` that if ``add`` is 1."""
    rows, groups = scales.shape[0], scales.shape[1]
    a_stride = a.shape[1]
    panels = matrices.panels.shape[1]
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
        multiply_panels(
            matrices,
            layer,
            first,
            min(first + per_piece, panels),
            address(a) + block * a_stride,
            address(scales) + block * groups * SCALE_BYTES,
            min(ROWS, rows - block),
            groups,
            address(matrices.bias[layer]) + first * PANEL * 4,
            address(out) + block * stride + first * PANEL * 4,
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
    elif activation == GELU:
        gelu_and_mul(arguments)
    else:
        gelu_tanh_and_mul(arguments)


@kernel(fastmath=False)
def gate_up(
    a: Any,
    scales: Any,
    matrices: Any,
    layer: Any,
    activation: Any,
    terms: Any,
    buffers: Any,
    out: Any,
    out_scales: Any,
    team: Any,
    phase: Any,
) -> None:
    """Compute activation(a @ gate.T) * (a @ up.T), quantized.

    Gate and up are the two halves of one matrix. ``terms`` are added to both: [rows, 2 inner], or no rows.
    """
    rows, groups = scales.shape[0], scales.shape[1]
    a_stride = a.shape[1]
    inner, buffer = out.shape[1], buffers[team.thread]
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
            for part in range(2):  # gate, up
                column = piece * GROUP + part * inner
                for row in range(count if len(terms) else 0):
                    for i in range(GROUP):
                        buffer[(2 * row + part) * GROUP + i] = terms[block + row, column + i]
                multiply_panels(
                    matrices,
                    layer,
                    column // PANEL,
                    (column + GROUP) // PANEL,
                    address(a) + block * a_stride,
                    address(scales) + block * groups * SCALE_BYTES,
                    count,
                    groups,
                    address(matrices.bias[layer]) + column * 4,
                    address(buffer) + part * GROUP * 4,
                    stride,
                    1 if len(terms) else 0,
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
