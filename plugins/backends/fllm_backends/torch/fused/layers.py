"""A decoder's layers on packed weights, written for one thread of several.

All threads run `forward` over the same arrays. Within a phase each takes the next piece of work that nobody
has begun, so that one whose core is busy with something else delays nobody; between phases they meet.
Activations are rounded in groups of 32, like the weights. No sum depends on how the work is cut or on other
rows: a sequence's result is the same, to the bit, alone and in any batch.
"""

from __future__ import annotations

from typing import Any

from fllm_backends.torch.fused.compiled import kernel
from fllm_backends.torch.fused.heads import attend, rotate_and_store
from fllm_backends.torch.fused.norms import normalize_rows
from fllm_backends.torch.fused.products import gate, project
from fllm_backends.torch.fused.threads import meet

PHASES = 5
"""Of a layer, whose work is taken in turns."""


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
