"""A mixture of experts: a router chooses some of them for each token.

The tokens are sorted by expert, so that the weights of an expert are streamed once for all its tokens. A
*job* is an expert with some of its tokens. The outputs of a token's experts are added in the order of the
experts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fllm_backends.torch.fused.formats import GROUP, PANEL
from fllm_backends.torch.fused.intrinsics import address
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.matmul import ROWS, activate_and_mul_group, multiply_panels
from fllm_backends.torch.fused.simd_kernels import SCALE_BYTES, SCALES
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase, units_per_piece

JOBS = 2
"""Where the counters of the phase that makes the jobs have their number.

It determines the number of pieces, and a thread that starts late must find the same number in its own run.
"""

single = np.float32


@kernel(fastmath=False)
def run_experts(team: Any, shape: Any, w: Any, layer: Any, out: Any, add: Any, s: Any, phase: Any) -> None:
    """Compute ``out = experts(rows)``, or ``out +=`` that if ``add`` is 1.

    The rows are in ``s`` twice: normalized, and quantized.
    """
    compute_inner(team, shape, w, layer, s, phase)
    jobs = team.counters[phase + 2, JOBS]
    experts_down(w, layer, jobs, out, add, s, team, phase + 5)


@kernel(fastmath=False)
def compute_inner(team: Any, shape: Any, w: Any, layer: Any, s: Any, phase: Any) -> None:
    """Choose the experts of all rows, and compute their inner values. Phase 2 counts the jobs."""
    rows = s.hidden_scales.shape[0]
    route(s.norm_rows, w.router[w.router_index[layer]], rows, s.router_logits, team, phase)
    choose_experts(shape, rows, s, team, phase + 1)
    sort_by_expert(rows, s, team, phase + 2)
    jobs = team.counters[phase + 2, JOBS]
    if rows > 1:
        gather_rows(rows * s.chosen.shape[1], s, team, phase + 3)
    experts_gate_up(shape, w, layer, rows, jobs, s, team, phase + 4)


@kernel()
def dot(x: Any, y: Any) -> Any:
    """Return the dot product of two rows."""
    total = single(0)
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@kernel(fastmath=False)
def route(x: Any, router: Any, rows: Any, logits: Any, team: Any, phase: Any) -> None:
    """Compute the router's logits, [rows, experts], in float32."""
    units = rows * len(router)
    per_piece = units_per_piece(units, team)
    pieces, completed = -(-units // per_piece), 0
    while True:
        first = claim_piece(team, phase) * per_piece
        if first >= units:
            break
        completed += 1
        for unit in range(first, min(first + per_piece, units)):
            t, expert = unit // len(router), unit % len(router)
            logits[t, expert] = dot(x[t], router[expert])
    finish_phase(team, phase, completed, pieces)


@kernel(fastmath=False)
def choose_experts(shape: Any, rows: Any, s: Any, team: Any, phase: Any) -> None:
    """Choose the experts of all rows."""
    per_piece = units_per_piece(rows, team)
    pieces, completed = -(-rows // per_piece), 0
    while True:
        first = claim_piece(team, phase) * per_piece
        if first >= rows:
            break
        completed += 1
        for t in range(first, min(first + per_piece, rows)):
            choose_experts_of_token(shape, s.router_logits[t], s.chosen[t], s.chosen_weights[t])
    finish_phase(team, phase, completed, pieces)


@kernel(fastmath=False)
def choose_experts_of_token(shape: Any, logits: Any, chosen: Any, weights: Any) -> None:
    """Choose the experts with the highest logits; of equals, the first. Their weights are a softmax.

    Shared experts come after them. Their logit is the last one, and its sigmoid is their weight.
    """
    experts, routed = shape.experts, shape.experts_per_token
    total, chosen_total = single(0), single(0)
    top = logits[first_largest(logits, experts)]
    shared = single(1) / (single(1) + math.exp(-logits[experts]))
    for expert in range(experts):
        total += math.exp(logits[expert] - top)
    for place in range(routed):
        best = first_largest(logits, experts)
        chosen[place], weights[place] = best, math.exp(logits[best] - top) / total
        chosen_total += weights[place]
        logits[best] = -np.inf
    if shape.normalize_experts:
        for place in range(routed):
            weights[place] /= chosen_total
    for place in range(routed, len(chosen)):
        chosen[place], weights[place] = experts + place - routed, shared


@kernel(fastmath=False)
def first_largest(values: Any, count: Any) -> Any:
    """Return the place of the largest of the first ``count`` values; of equals, the first."""
    best = 0
    for i in range(1, count):
        if values[i] > values[best]:
            best = i
    return best


@kernel(fastmath=False)
def sort_by_expert(rows: Any, s: Any, team: Any, phase: Any) -> None:
    """Sort the rows by expert, into `ROWS` rows at most for each job. One thread does this."""
    completed = 0
    if claim_piece(team, phase) == 0:
        completed = 1
        ends = s.expert_ends
        ends[:] = 0
        for t in range(rows):
            for place in range(s.chosen.shape[1]):
                ends[s.chosen[t, place]] += 1
        jobs = first = 0
        for expert in range(len(ends)):
            count = ends[expert]
            for start in range(0, count, ROWS):
                s.jobs[jobs, 0], s.jobs[jobs, 1] = expert, first + start
                s.jobs[jobs, 2] = min(ROWS, count - start)
                jobs += 1
            ends[expert] = first
            first += count
        team.counters[phase, JOBS] = jobs
        for t in range(rows):
            for place in range(s.chosen.shape[1]):
                slot = ends[s.chosen[t, place]]
                ends[s.chosen[t, place]] += 1
                s.slot_tokens[slot], s.slot_weights[slot] = t, s.chosen_weights[t, place]
    finish_phase(team, phase, completed, 1)


@kernel(fastmath=False)
def gather_rows(slots: Any, s: Any, team: Any, phase: Any) -> None:
    """Copy the quantized rows in the order of the experts."""
    per_piece = units_per_piece(slots, team)
    pieces, completed = -(-slots // per_piece), 0
    while True:
        first = claim_piece(team, phase) * per_piece
        if first >= slots:
            break
        completed += 1
        for slot in range(first, min(first + per_piece, slots)):
            t = s.slot_tokens[slot]
            for i in range(s.hidden.shape[1]):
                s.expert_hidden[slot, i] = s.hidden[t, i]
            for group in range(s.hidden_scales.shape[1]):
                for i in range(SCALES):
                    s.expert_hidden_scales[slot, group, i] = s.hidden_scales[t, group, i]
    finish_phase(team, phase, completed, pieces)


@kernel(fastmath=False)
def experts_gate_up(
    shape: Any, w: Any, layer: Any, rows: Any, jobs: Any, s: Any, team: Any, phase: Any
) -> None:
    """Compute activation(row @ gate.T) * (row @ up.T) of all jobs, quantized."""
    inner, groups, buffer = s.expert_inner.shape[1], s.hidden_scales.shape[1], s.gate_up[team.thread]
    blocks, stride = inner // GROUP, 8 * GROUP
    units = jobs * blocks
    panels, per_piece = 2 * inner // PANEL, units_per_piece(units, team)
    pieces, completed = -(-units // per_piece), 0
    while True:
        piece = claim_piece(team, phase) * per_piece
        if piece >= units:
            break
        completed += 1
        for unit in range(piece, min(piece + per_piece, units)):
            job, block = s.jobs[unit // blocks], unit % blocks
            expert, first, count = job[0], job[1], job[2]
            if rows > 1:
                a, scales = address(s.expert_hidden[first]), address(s.expert_hidden_scales[first])
            else:
                a, scales = address(s.hidden), address(s.hidden_scales)
            for part in range(2):  # gate, up
                column = block * GROUP + part * inner
                panel = expert * panels + column // PANEL
                multiply_panels(
                    w.gate_up,
                    layer,
                    panel,
                    panel + GROUP // PANEL,
                    a,
                    scales,
                    count,
                    groups,
                    address(w.gate_up.bias) + column * 4,
                    address(buffer) + part * GROUP * 4,
                    stride,
                    0,
                )
            for row in range(count):
                activate_and_mul_group(
                    shape.activation,
                    address(buffer) + row * stride,
                    address(s.expert_inner[first + row]) + block * GROUP,
                    address(s.expert_inner_scales[first + row]) + block * SCALE_BYTES,
                )
    finish_phase(team, phase, completed, pieces)


@kernel(fastmath=False)
def experts_down(w: Any, layer: Any, jobs: Any, out: Any, add: Any, s: Any, team: Any, phase: Any) -> None:
    """Multiply with ``down``, and add the results of all experts. A piece has some columns of all rows."""
    groups, buffer = s.expert_inner_scales.shape[1], s.gate_up[team.thread]
    panels = out.shape[1] // PANEL
    per_piece = units_per_piece(panels, team)
    pieces, completed = -(-panels // per_piece), 0
    while True:
        piece = claim_piece(team, phase) * per_piece
        if piece >= panels:
            break
        completed += 1
        last = min(piece + per_piece, panels)
        if not add:
            out[:, piece * PANEL : last * PANEL] = single(0)
        for index in range(jobs):
            expert, first, count = s.jobs[index, 0], s.jobs[index, 1], s.jobs[index, 2]
            for panel in range(piece, last):
                multiply_panels(
                    w.down,
                    layer,
                    expert * panels + panel,
                    expert * panels + panel + 1,
                    address(s.expert_inner[first]),
                    address(s.expert_inner_scales[first]),
                    count,
                    groups,
                    address(w.down.bias) + panel * PANEL * 4,
                    address(buffer),
                    PANEL * 4,
                    0,
                )
                for row in range(count):
                    t, weight = s.slot_tokens[first + row], s.slot_weights[first + row]
                    for i in range(PANEL):
                        out[t, panel * PANEL + i] += weight * buffer[row * PANEL + i]
    finish_phase(team, phase, completed, pieces)
