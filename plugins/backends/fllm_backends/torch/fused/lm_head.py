"""The embedding of tokens, and the output head: logits or the most likely token."""

from __future__ import annotations

from typing import Any

import numpy as np

from fllm_backends.torch.fused.intrinsics import address, load_byte_at, load_half_at
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.matmul import PLANES_15_BIT, ROWS, linear, panel_matmul
from fllm_backends.torch.fused.norms import normalize_rows
from fllm_backends.torch.fused.packing import GROUP, PANEL, RECORD_8, TAIL
from fllm_backends.torch.fused.simd_kernels import SCALE_BYTES
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase, units_per_piece

PHASES = 2
"""Number of phases of the output head."""

single = np.float32


@kernel(fastmath=False)
def embed(ids: Any, matrix: Any, out: Any) -> None:
    """Write the embeddings of the tokens, [tokens, hidden], to ``out``."""
    groups = out.shape[1] // GROUP
    record = matrix.record_bytes[0]
    for t in range(len(ids)):
        panel, column = ids[t] // PANEL, ids[t] % PANEL
        for group in range(groups):
            at = matrix.addresses[0] + (panel * groups + group) * record
            tail = at + record - TAIL + 2 * column
            scale, minimum = load_half_at(tail), load_half_at(tail + 2 * PANEL)
            for i in range(GROUP):
                quad = i // 4
                if record == RECORD_8:
                    number = load_byte_at(at + quad * 4 * PANEL + column * 4 + i % 4)
                else:
                    both = load_byte_at(at + quad // 2 * 4 * PANEL + column * 4 + i % 4)
                    number = both & 15 if quad % 2 == 0 else both >> 4
                out[t, group * GROUP + i] = minimum + scale * single(number)


@kernel(fastmath=False)
def logits(team: Any, eps: Any, norm: Any, matrix: Any, x: Any, out: Any, s: Any) -> None:
    """Compute [rows, vocabulary] logits of [rows, hidden] states: the final norm and the output head."""
    normalize_rows(x, norm, eps, s.norm_row, s.hidden, s.hidden_scales, team, 0)
    linear(s.hidden, s.hidden_scales, matrix, 0, out, 0, team, 1)


@kernel(fastmath=False)
def allowed_bits(masks: Any, row: Any, panel: Any) -> Any:
    """Return a bit for each token of a panel that a row may choose."""
    if masks.shape[0] == 0:
        return (1 << PANEL) - 1
    return masks[row, panel * PANEL // 32] >> panel * PANEL % 32


@kernel(fastmath=False)
def greedy_tokens(team: Any, eps: Any, norm: Any, matrix: Any, x: Any, state: Any, s: Any) -> None:
    """Find the greatest allowed logit of each row among those that this thread computes, and its token.

    ``state`` is [threads, rows] and starts at -infinity. A thread's pieces ascend, so the first of equals
    stays.
    """
    normalize_rows(x, norm, eps, s.norm_row, s.hidden, s.hidden_scales, team, 0)
    rows, groups = s.hidden_scales.shape[0], s.hidden_scales.shape[1]
    panels, record = matrix.bias.shape[1] // PANEL, matrix.record_bytes[0]
    per_piece = units_per_piece(panels, team)
    buffer = s.gate_up[team.thread]
    values, tokens = state.values[team.thread], state.tokens[team.thread]
    pieces, completed = -(-panels // per_piece), 0
    while True:
        first = claim_piece(team, 1) * per_piece
        if first >= panels:
            break
        completed += 1
        for panel in range(first, min(first + per_piece, panels)):
            for block in range(0, rows, ROWS):
                count = min(ROWS, rows - block)
                panel_matmul(
                    address(s.hidden) + block * groups * GROUP * PLANES_15_BIT,
                    address(s.hidden_scales) + block * groups * SCALE_BYTES,
                    count,
                    PLANES_15_BIT,
                    record,
                    matrix.addresses[0] + panel * groups * record,
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
    finish_phase(team, 1, completed, pieces)
