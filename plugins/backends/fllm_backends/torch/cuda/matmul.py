"""Products of activations with weights that are read once: of any width, by one row or by several.

cuBLAS is good where arithmetic is the limit. These kernels are for the other end, where the weights' way
from memory is: one row, and weights of one byte, which are widened in registers.
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
    """What one program of a product computes, and how."""

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
"""By rows: the narrow ones have enough programs to keep the memory busy, the wide one reuses what it read."""


def multiply(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    norm: RMSNorm | None = None,
    onto: Tensor | None = None,
) -> Tensor:
    """``norm(x) @ (weight * scale).T + bias``, added to ``onto`` itself where given; summed in float32.

    x: [rows, in]; weight: [out, in] of any floating dtype or int8; scale and bias: [out]; onto: [rows, out].
    A norm is taken of one row alone: there it costs nothing, since each program reads the row anyway.
    """
    rows, inputs = x.shape
    assert norm is None or rows == 1
    outputs = len(weight)
    out = x.new_empty((rows, outputs)) if onto is None else onto
    sizes = {"IN": inputs, "OUT": outputs}
    extras = {"SCALED": scale is not None, "BIASED": bias is not None, "ADD": onto is not None}
    operands = (x, weight, weight if scale is None else scale, weight if bias is None else bias, out)
    if rows == 1:
        programs = triton.cdiv(outputs, _ONE_ROW_OUTPUTS)
        _one_row[(programs,)](
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
    _many_rows[grid](
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
def _one_row(
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
    alive = outputs < OUT
    starts = outputs.to(tl.int64)[:, None] * IN
    sums = tl.zeros([OUTPUTS, INPUTS], tl.float32)
    squares = tl.zeros([INPUTS], tl.float32)
    for at in range(0, IN, INPUTS):
        inputs = at + tl.arange(0, INPUTS)
        there = inputs < IN
        own = tl.load(x + inputs, mask=there, other=0.0).to(tl.float32)
        if NORM:
            squares += own * own
            own = own * tl.load(norm + inputs, mask=there, other=0.0).to(tl.float32)
        row = tl.load(weight + starts + inputs[None, :], mask=alive[:, None] & there[None, :], other=0.0)
        sums += row.to(tl.float32) * own[None, :]
    total = tl.sum(sums, 1)
    if NORM:
        total = total * tl.rsqrt(tl.sum(squares, 0) / IN + eps)
    if SCALED:
        total = total * tl.load(scale + outputs, mask=alive, other=0.0)
    if BIASED:
        total = total + tl.load(bias + outputs, mask=alive, other=0.0).to(tl.float32)
    if ADD:
        total = total + tl.load(out + outputs, mask=alive, other=0.0).to(tl.float32)
    tl.store(out + outputs, total.to(out.dtype.element_ty), mask=alive)  # pyright: ignore[reportAttributeAccessIssue]


@kernel
def _many_rows(
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
    # Programs that run together share the weights: the first number is the one that goes fastest.
    own = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    outputs = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    alive = outputs < OUT
    x_starts = own.to(tl.int64)[:, None] * IN
    starts = outputs.to(tl.int64)[:, None] * IN
    sums = tl.zeros([ROWS, OUTPUTS], tl.float32)
    for at in range(0, IN, INPUTS):
        inputs = at + tl.arange(0, INPUTS)
        there = (inputs < IN)[None, :]
        left = tl.load(x + x_starts + inputs[None, :], mask=(own < rows)[:, None] & there, other=0.0)
        right = tl.load(weight + starts + inputs[None, :], mask=alive[:, None] & there, other=0.0)
        sums = tl.dot(left, tl.trans(right.to(left.dtype)), sums, input_precision="ieee")
    if SCALED:
        sums = sums * tl.load(scale + outputs, mask=alive, other=0.0)[None, :]
    if BIASED:
        sums = sums + tl.load(bias + outputs, mask=alive, other=0.0).to(tl.float32)[None, :]
    places = out + own.to(tl.int64)[:, None] * OUT + outputs[None, :]
    real = (own < rows)[:, None] & alive[None, :]
    if ADD:
        sums = sums + tl.load(places, mask=real, other=0.0).to(tl.float32)
    tl.store(places, sums.to(out.dtype.element_ty), mask=real)  # pyright: ignore[reportAttributeAccessIssue]
