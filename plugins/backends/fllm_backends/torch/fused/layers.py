"""The layers of a decoder on packed weights, written for one thread of several.

All threads run `forward` over the same arrays, phase by phase (see `thread_team`). Activations are quantized
in groups of 32, like the weights. No sum depends on how the work is divided or on other rows, so a sequence
has the same result to the bit alone and in any batch.

What a model does not have, it skips: the norms of outputs have no elements, and no layer has experts.
"""

from __future__ import annotations

from typing import Any

from fllm_backends.torch.fused.attention import attend, norm_rope_and_cache
from fllm_backends.torch.fused.experts import run_experts
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.lm_head import Computes, greedy_tokens, logits
from fllm_backends.torch.fused.low_rank import DOWN, GATE_UP, OUTPUT, QKV, add_low_rank
from fllm_backends.torch.fused.matmul import gate_up, linear
from fllm_backends.torch.fused.norms import add_normalized_rows, normalize_rows

PHASES = 18
"""Maximum number of phases of a layer."""
TOKENS, LOGITS = int(Computes.TOKENS), int(Computes.LOGITS)
ADAPTERS = 14
"""The first phase of those that add the products of adapters."""


@kernel(fastmath=False)
def forward(
    team: Any, shape: Any, w: Any, batch: Any, x: Any, keys: Any, values: Any, head: Any, s: Any
) -> None:
    """Run all layers over ``x``, [tokens, hidden], in place; then the output head, if asked for."""
    low_rank = batch.low_rank
    for layer in range(len(keys)):
        k, v, phase = keys[layer], values[layer], layer * PHASES
        normalize_rows(
            x, w.input_norm[layer], shape.eps, s.norm_rows, False, s.hidden, s.hidden_scales, team, phase
        )
        linear(s.hidden, s.hidden_scales, w.qkv, layer, s.qkv, 0, team, phase + 1)
        if len(low_rank.places):
            add_low_rank(
                s.hidden, s.hidden_scales, low_rank, QKV, layer, False, s.qkv, team, phase + ADAPTERS
            )
        norm_rope_and_cache(s.qkv, batch, shape, w, layer, k, v, team, phase + 2)
        attend(s.qkv, batch, shape, w.window[layer], k, v, s, team, phase + 3)
        normalized = w.output_norm.shape[1] > 0
        out, add = (s.outputs, 0) if normalized else (x, 1)
        linear(s.attention, s.attention_scales, w.output, layer, out, add, team, phase + 4)
        if len(low_rank.places):
            add_low_rank(
                s.attention,
                s.attention_scales,
                low_rank,
                OUTPUT,
                layer,
                False,
                out,
                team,
                phase + ADAPTERS + 1,
            )
        if normalized:
            add_normalized_rows(
                x, w.output_norm[layer], shape.output_eps, s.norm_rows, s.outputs, team, phase + 5
            )
        feed_forward(team, shape, w, low_rank, layer, x, s, phase + 6)
    last = len(keys) * PHASES
    if head.computes == TOKENS:
        greedy_tokens(team, last, shape.eps, head.norm, head.matrix, x, head.best, s)
    elif head.computes == LOGITS:
        logits(team, last, shape.eps, head.norm, head.matrix, x, head.logits, s)


@kernel(fastmath=False)
def feed_forward(
    team: Any, shape: Any, w: Any, low_rank: Any, layer: Any, x: Any, s: Any, phase: Any
) -> None:
    """Run the second half of a layer."""
    sparse, normalized = w.sparse[layer], w.mlp_output_norm.shape[1] > 0
    out, add = (s.outputs, 0) if normalized else (x, 1)
    normalize_rows(
        x, w.mlp_norm[layer], shape.eps, s.norm_rows, sparse, s.hidden, s.hidden_scales, team, phase
    )
    if sparse:
        run_experts(team, shape, w.experts, layer, out, add, s, phase + 1)
    else:
        if len(low_rank.places):
            add_low_rank(
                s.hidden,
                s.hidden_scales,
                low_rank,
                GATE_UP,
                layer,
                True,
                low_rank.gate_up,
                team,
                phase + ADAPTERS - 4,
            )
        gate_up(
            s.hidden,
            s.hidden_scales,
            w.gate_up,
            layer,
            shape.activation,
            low_rank.gate_up,
            s.gate_up,
            s.inner,
            s.inner_scales,
            team,
            phase + 1,
        )
        linear(s.inner, s.inner_scales, w.down, layer, out, add, team, phase + 2)
        if len(low_rank.places):
            add_low_rank(
                s.inner, s.inner_scales, low_rank, DOWN, layer, False, out, team, phase + ADAPTERS - 3
            )
    if normalized:
        add_normalized_rows(
            x, w.mlp_output_norm[layer], shape.output_eps, s.norm_rows, s.outputs, team, phase + 7
        )
