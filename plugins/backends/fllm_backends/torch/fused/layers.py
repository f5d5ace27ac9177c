"""A decoder's layers on packed weights, written for one thread of several.

All threads run `forward` over the same arrays, phase by phase (`threads`). Activations are rounded in groups
of 32, like the weights. No sum depends on how the work is cut or on other rows: a sequence's result is the
same, to the bit, alone and in any batch.
"""

from __future__ import annotations

from typing import Any

from fllm_backends.torch.fused.attention import attend, place_heads
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.matmul import gate, project
from fllm_backends.torch.fused.norms import normalize_rows

PHASES = 8
"""Of a layer."""


@kernel(fast=False)
def forward(team: Any, shape: Any, w: Any, batch: Any, x: Any, keys: Any, values: Any, s: Any) -> None:
    """Run all layers over ``x`` ([tokens, hidden], in place)."""
    for layer in range(len(keys)):
        k, v, phase = keys[layer], values[layer], layer * PHASES
        normalize_rows(x, w.input_norm[layer], shape.eps, s.row, s.hidden, s.hidden_scales, team, phase)
        project(s.hidden, s.hidden_scales, w.qkv, layer, s.qkv, 0, team, phase + 1)
        place_heads(s.qkv, batch, shape, w, layer, k, v, team, phase + 2)
        attend(s.qkv, batch, shape, w.window[layer], k, v, s, team, phase + 3)
        project(s.heads, s.heads_scales, w.output, layer, x, 1, team, phase + 4)
        normalize_rows(x, w.post_norm[layer], shape.eps, s.row, s.hidden, s.hidden_scales, team, phase + 5)
        gate(s.hidden, s.hidden_scales, w.gate_up, layer, s.gates, s.wide, s.wide_scales, team, phase + 6)
        project(s.wide, s.wide_scales, w.down, layer, x, 1, team, phase + 7)
