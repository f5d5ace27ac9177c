"""The two ends of a decoder: tokens to embeddings, and hidden states to logits or a choice."""

from __future__ import annotations

from typing import Any

import numpy as np

from fllm_backends.torch.fused.intrinsics import address, byte_at, half_at
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.matmul import FINE, ROWS, product, project
from fllm_backends.torch.fused.norms import normalize_rows
from fllm_backends.torch.fused.packing import GROUP, PANEL, RECORD_8, TAIL
from fllm_backends.torch.fused.simd_kernels import SCALES
from fllm_backends.torch.fused.thread_team import at_once, finish, take

PHASES = 2
"""Of what gives logits or a choice."""

single = np.float32


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


@kernel(fast=False)
def logits(team: Any, eps: Any, norm: Any, matrix: Any, x: Any, out: Any, s: Any) -> None:
    """[rows, hidden] to [rows, vocabulary]: the final norm and the output head."""
    normalize_rows(x, norm, eps, s.row, s.hidden, s.hidden_scales, team, 0)
    project(s.hidden, s.hidden_scales, matrix, 0, out, 0, team, 1)


@kernel(fast=False)
def allowed_of(masks: Any, row: Any, panel: Any) -> Any:
    """A bit for each token of a panel."""
    if masks.shape[0] == 0:
        return (1 << PANEL) - 1
    return masks[row, panel * PANEL // 32] >> panel * PANEL % 32


@kernel(fast=False)
def choose(team: Any, eps: Any, norm: Any, matrix: Any, x: Any, best: Any, s: Any) -> None:
    """The greatest allowed logit of each row among those that this thread computes, and its place.

    ``best`` is [threads, rows], and holds -infinity; a thread's pieces ascend, so of equals the first stays.
    """
    normalize_rows(x, norm, eps, s.row, s.hidden, s.hidden_scales, team, 0)
    rows, groups = s.hidden_scales.shape[0], s.hidden_scales.shape[1]
    panels, record = matrix.bias.shape[1] // PANEL, matrix.records[0]
    many = at_once(panels, team)
    room = s.gates[team.thread]
    values, places = best.values[team.thread], best.places[team.thread]
    pieces, mine = -(-panels // many), 0
    while True:
        first = take(team, 1) * many
        if first >= panels:
            break
        mine += 1
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
                    allowed = allowed_of(best.masks, block + row, panel)
                    for i in range(PANEL):
                        value = room[row * PANEL + i]
                        if value > values[block + row] and allowed >> i & 1:
                            values[block + row], places[block + row] = value, panel * PANEL + i
    finish(team, 1, mine, pieces)
