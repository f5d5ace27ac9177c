"""The embedding of tokens, and the output head: logits or the most likely token."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from fllm_backends.torch.fused.arrays import Integers
from fllm_backends.torch.fused.formats import FORMATS, GROUP, PANEL, Scales
from fllm_backends.torch.fused.intrinsics import address, load_byte_at, load_half_at
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.matmul import PLANES_15_BIT, ROWS, linear, multiply_panels
from fllm_backends.torch.fused.norms import normalize_rows
from fllm_backends.torch.fused.packing import PackedMatrix, panel_addresses
from fllm_backends.torch.fused.simd_kernels import SCALE_BYTES
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase, units_per_piece

PHASES = 2
"""Number of phases of the output head."""

single = np.float32


class Computes(IntEnum):
    """What follows the layers in the same call."""

    NOTHING = 0
    TOKENS = 1
    LOGITS = 2


class Embedding(NamedTuple):
    """A packed matrix whose rows are looked up."""

    panels: Integers
    """Address of each panel."""
    formats: Integers
    """Index of the format of each panel in `FORMATS`."""


_FORMATS = np.array(
    [
        (
            form.bits,
            form.groups,
            form.value_bytes,
            form.block_bytes,
            [*Scales].index(form.scales),
            form.minima,
        )
        for form in FORMATS
    ]
)
_ZEROS, _NESTED, _HALVES = (
    np.int64([*Scales].index(kind)) for kind in (Scales.ZEROS, Scales.NESTED, Scales.HALVES)
)


def embedding(matrix: PackedMatrix) -> Embedding:
    """Return the rows of a packed matrix, which must be kept."""
    return Embedding(
        panel_addresses(matrix),
        np.concatenate([np.full(len(part.panels), FORMATS.index(part.format)) for part in matrix.parts]),
    )


@kernel(fastmath=False)
def embed(ids: Any, rows: Embedding, out: Any) -> None:
    """Write the embeddings of the tokens, [tokens, hidden], to ``out``."""
    for t in range(len(ids)):
        panel, column = ids[t] // PANEL, ids[t] % PANEL
        form = _FORMATS[rows.formats[panel]]
        bits, groups, value_bytes, block_bytes = form[0], form[1], form[2], form[3]
        kind, minima = form[4], form[5]
        centre = single(1 << (bits - 1))
        for group in range(out.shape[1] // GROUP):
            block, part = group // groups, group % groups
            at = rows.panels[panel] + block * block_bytes
            tail = at + groups * value_bytes
            at += part * value_bytes
            for half in range(2):
                if kind == _NESTED:
                    both = load_byte_at(tail + part * PANEL + column)
                    high = load_byte_at(tail + groups * PANEL + 4 * column + part // 2) >> part % 2 * 4
                    shared = tail + (groups + 4) * PANEL + 2 * column
                    scale = load_half_at(shared) * single(both & 15 | (high & 3) << 4)
                    minimum = load_half_at(shared + 2 * PANEL) * single(both >> 4 | (high >> 2 & 3) << 4)
                elif kind == _HALVES:
                    number = (load_byte_at(tail + (2 * part + half) * PANEL + column) ^ 128) - 128
                    scale = load_half_at(tail + 2 * groups * PANEL + 2 * column) * single(number)
                    minimum = -centre * scale
                elif kind == _ZEROS:
                    scale = load_half_at(tail + 2 * column)
                    minimum = -scale * single(load_byte_at(tail + 2 * PANEL + column))
                else:
                    scale = load_half_at(tail + 2 * column)
                    minimum = load_half_at(tail + 2 * (PANEL + column)) if minima else -centre * scale
                for i in range(half * GROUP // 2, (half + 1) * GROUP // 2):
                    number = load_value(at + column * 4 + i % 4, bits, i // 4)
                    out[t, group * GROUP + i] = minimum + scale * single(number)


@kernel(fastmath=False)
def load_value(at: Any, bits: Any, quad: Any) -> Any:
    """Load a value of a group, given the address of the first value in the same place of a quad."""
    if bits == 8:
        return np.int64(load_byte_at(at + quad * 4 * PANEL))
    number = load_byte_at(at + quad // 2 * 4 * PANEL) >> quad % 2 * 4 & 15
    if bits > 4:
        high = bits - 4
        share = 8 // high
        line = load_byte_at(at + (GROUP // 8 + quad // share) * 4 * PANEL)
        number |= (line >> quad % share * high & (1 << high) - 1) << 4
    return number


@kernel(fastmath=False)
def logits(team: Any, phase: Any, eps: Any, norm: Any, matrix: Any, x: Any, out: Any, s: Any) -> None:
    """Compute [rows, vocabulary] logits of [rows, hidden] states: the final norm and the output head."""
    normalize_rows(x, norm, eps, s.norm_rows, False, s.hidden, s.hidden_scales, team, phase)
    linear(s.hidden, s.hidden_scales, matrix, 0, out, 0, team, phase + 1)


@kernel(fastmath=False)
def allowed_bits(masks: Any, row: Any, panel: Any) -> Any:
    """Return a bit for each token of a panel that a row may choose."""
    if masks.shape[0] == 0:
        return (1 << PANEL) - 1
    return masks[row, panel * PANEL // 32] >> panel * PANEL % 32


@kernel(fastmath=False)
def greedy_tokens(
    team: Any, phase: Any, eps: Any, norm: Any, matrix: Any, x: Any, state: Any, s: Any
) -> None:
    """Find the greatest allowed logit of each row among those that this thread computes, and its token.

    ``state`` is [threads, rows] and starts at -infinity. A thread's pieces ascend, so the first of equals
    stays. The calling thread chooses among those of all threads: of equals the first token.
    """
    normalize_rows(x, norm, eps, s.norm_rows, False, s.hidden, s.hidden_scales, team, phase)
    rows, groups = s.hidden_scales.shape[0], s.hidden_scales.shape[1]
    panels = matrix.panels.shape[1]
    per_piece = units_per_piece(panels, team)
    buffer = s.gate_up[team.thread]
    values, tokens = state.values[team.thread], state.tokens[team.thread]
    pieces, completed = -(-panels // per_piece), 0
    while True:
        first = claim_piece(team, phase + 1) * per_piece
        if first >= panels:
            break
        completed += 1
        for panel in range(first, min(first + per_piece, panels)):
            for block in range(0, rows, ROWS):
                count = min(ROWS, rows - block)
                multiply_panels(
                    matrix,
                    0,
                    panel,
                    panel + 1,
                    address(s.hidden) + block * groups * GROUP * PLANES_15_BIT,
                    address(s.hidden_scales) + block * groups * SCALE_BYTES,
                    count,
                    groups,
                    address(matrix.bias) + panel * PANEL * 4,
                    address(buffer),
                    PANEL * 4,
                    0,
                )
                for row in range(count):
                    allowed = allowed_bits(state.masks, block + row, panel)
                    for i in range(PANEL):
                        value = buffer[row * PANEL + i]
                        if value > values[block + row] and allowed >> i & 1:
                            values[block + row], tokens[block + row] = value, panel * PANEL + i
    finish_phase(team, phase + 1, completed, pieces)
    if team.thread == 0:
        for row in range(rows):
            best = 0
            for thread in range(1, team.threads):
                value, most = state.values[thread, row], state.values[best, row]
                if value > most or (value == most and state.tokens[thread, row] < state.tokens[best, row]):
                    best = thread
            state.chosen[row] = state.tokens[best, row]
