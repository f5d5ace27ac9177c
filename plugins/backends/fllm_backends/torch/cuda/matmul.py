"""Matrix products that are limited by memory: one row of activations, or weights of one byte.

cuBLAS is good when arithmetic is the limit. These kernels are for the case when loading the weights is the
limit; weights of one byte are widened in registers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from fllm_backends.torch.cuda.jit import kernel
from fllm_backends.torch.model import RMSNorm


class _Tile(NamedTuple):
    """Tile sizes and launch options of one program."""

    rows: int
    outputs: int
    inputs: int
    warps: int
    stages: int


_ONE_ROW_OUTPUTS, _ONE_ROW_INPUTS = 4, 1024
_TILES = (
    _Tile(rows=16, outputs=32, inputs=128, warps=4, stages=4),
    _Tile(rows=32, outputs=32, inputs=128, warps=4, stages=4),
    _Tile(rows=64, outputs=64, inputs=64, warps=4, stages=4),
    _Tile(rows=128, outputs=128, inputs=64, warps=8, stages=3),
)
"""Tiles by rows. Narrow ones give enough programs to keep memory busy; the wide one reuses loaded data."""


def matmul(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    norm: RMSNorm | None = None,
    add_to: Tensor | None = None,
) -> Tensor:
    """Compute ``norm(x) @ (weight * scale).T + bias`` in float32; add it to ``add_to`` in place if given.

    ``x`` is [rows, in]; ``weight`` [out, in] of any floating dtype or int8; ``scale`` and ``bias`` [out];
    ``add_to`` [rows, out]. A norm is supported for one row only: there it is free, because each program reads
    the row anyway.
    """
    rows, inputs = x.shape
    assert norm is None or rows == 1
    outputs = len(weight)
    out = x.new_empty((rows, outputs)) if add_to is None else add_to
    sizes = {"IN": inputs, "OUT": outputs}
    extras = {"SCALED": scale is not None, "BIASED": bias is not None, "ADD": add_to is not None}
    operands = (x, weight, weight if scale is None else scale, weight if bias is None else bias, out)
    if rows == 1:
        programs = triton.cdiv(outputs, _ONE_ROW_OUTPUTS)
        _matvec[(programs,)](
            *operands,
            norm.weight if norm else x,
            norm.eps if norm else 0.0,
            NORM=norm is not None,
            OUTPUTS=_ONE_ROW_OUTPUTS,
            INPUTS=_ONE_ROW_INPUTS,
            **extras,
            **sizes,
        )
        return out
    tile = next((tile for tile in _TILES if rows <= tile.rows), _TILES[-1])
    grid = (triton.cdiv(rows, tile.rows), triton.cdiv(outputs, tile.outputs))
    _matmul[grid](
        *operands,
        rows,
        ROWS=tile.rows,
        OUTPUTS=tile.outputs,
        INPUTS=tile.inputs,
        **extras,
        **sizes,
        num_warps=tile.warps,
        num_stages=1 if x.dtype == torch.float32 else tile.stages,
    )
    return out


@kernel
def _matvec(
    x: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    norm: tl.tensor,
    eps: tl.tensor,
    NORM: tl.constexpr,
    SCALED: tl.constexpr,
    BIASED: tl.constexpr,
    ADD: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
) -> None:
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    output_mask = outputs < OUT
    weight_rows = outputs.to(tl.int64)[:, None] * IN
    sums = tl.zeros([OUTPUTS, INPUTS], tl.float32)
    squares = tl.zeros([INPUTS], tl.float32)
    for at in range(0, IN, INPUTS):
        inputs = at + tl.arange(0, INPUTS)
        input_mask = inputs < IN
        x_row = tl.load(x + inputs, mask=input_mask, other=0.0).to(tl.float32)
        if NORM:
            squares += x_row * x_row
            x_row = x_row * tl.load(norm + inputs, mask=input_mask, other=0.0).to(tl.float32)
        row = tl.load(
            weight + weight_rows + inputs[None, :], mask=output_mask[:, None] & input_mask[None, :], other=0.0
        )
        sums += row.to(tl.float32) * x_row[None, :]
    total = tl.sum(sums, 1)
    if NORM:
        total = total * tl.rsqrt(tl.sum(squares, 0) / IN + eps)
    if SCALED:
        total = total * tl.load(scale + outputs, mask=output_mask, other=0.0)
    if BIASED:
        total = total + tl.load(bias + outputs, mask=output_mask, other=0.0).to(tl.float32)
    if ADD:
        total = total + tl.load(out + outputs, mask=output_mask, other=0.0).to(tl.float32)
    tl.store(out + outputs, total.to(out.dtype.element_ty), mask=output_mask)  # pyright: ignore[reportAttributeAccessIssue]


@kernel
def _matmul(
    x: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    SCALED: tl.constexpr,
    BIASED: tl.constexpr,
    ADD: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
) -> None:
    # Programs that run together share the weights, because the first program id varies fastest.
    x_rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    outputs = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    output_mask = outputs < OUT
    x_starts = x_rows.to(tl.int64)[:, None] * IN
    weight_rows = outputs.to(tl.int64)[:, None] * IN
    sums = tl.zeros([ROWS, OUTPUTS], tl.float32)
    for at in range(0, IN, INPUTS):
        inputs = at + tl.arange(0, INPUTS)
        input_mask = (inputs < IN)[None, :]
        left = tl.load(x + x_starts + inputs[None, :], mask=(x_rows < rows)[:, None] & input_mask, other=0.0)
        right = tl.load(
            weight + weight_rows + inputs[None, :], mask=output_mask[:, None] & input_mask, other=0.0
        )
        sums = tl.dot(left, tl.trans(right.to(left.dtype)), sums, input_precision="ieee")
    if SCALED:
        sums = sums * tl.load(scale + outputs, mask=output_mask, other=0.0)[None, :]
    if BIASED:
        sums = sums + tl.load(bias + outputs, mask=output_mask, other=0.0).to(tl.float32)[None, :]
    places = out + x_rows.to(tl.int64)[:, None] * OUT + outputs[None, :]
    mask = (x_rows < rows)[:, None] & output_mask[None, :]
    if ADD:
        sums = sums + tl.load(places, mask=mask, other=0.0).to(tl.float32)
    tl.store(places, sums.to(out.dtype.element_ty), mask=mask)  # pyright: ignore[reportAttributeAccessIssue]
