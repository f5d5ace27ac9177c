"""The layers of `layers` for a rank that computes some rows of each matrix, in steps between two exchanges.

What a rank needs of the others' results it gets before the next step, so all sums are those of one rank
alone: the results are the same to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fllm_backends.torch.fused.attention import attend, norm_rope_and_cache
from fllm_backends.torch.fused.experts import compute_inner, experts_down
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.matmul import gate_up, linear
from fllm_backends.torch.fused.norms import add_normalized_rows, normalize_rows

PHASES = 6
"""Maximum number of phases of a step."""
NO_TERMS = np.empty((0, 0), np.float32)
"""What adapters add to gates and ups: parts of layers have none."""


@kernel(fastmath=False)
def attention(
    team: Any, shape: Any, w: Any, batch: Any, layer: Any, x: Any, keys: Any, values: Any, s: Any
) -> None:
    """Attend with the rank's heads. The result is in ``s.attention``."""
    normalize_rows(x, w.input_norm[layer], shape.eps, s.norm_rows, False, s.hidden, s.hidden_scales, team, 0)
    linear(s.hidden, s.hidden_scales, w.qkv, layer, s.qkv, 0, team, 1)
    norm_rope_and_cache(s.qkv, batch, shape, w, layer, keys, values, team, 2)
    attend(s.qkv, batch, shape, w.window[layer], keys, values, s, team, 3)


@kernel(fastmath=False)
def inner(team: Any, shape: Any, w: Any, layer: Any, x: Any, s: Any) -> None:
    """Compute the rank's inner values of the MLP, or of the chosen experts."""
    sparse = w.sparse[layer]
    normalize_rows(x, w.mlp_norm[layer], shape.eps, s.norm_rows, sparse, s.hidden, s.hidden_scales, team, 0)
    if sparse:
        compute_inner(team, shape, w.experts, layer, s, 1)
    else:
        gate_up(
            s.hidden,
            s.hidden_scales,
            w.gate_up,
            layer,
            shape.activation,
            NO_TERMS,
            s.gate_up,
            s.inner,
            s.inner_scales,
            team,
            1,
        )


@kernel(fastmath=False)
def project(team: Any, a: Any, scales: Any, matrices: Any, layer: Any, out: Any, add: Any) -> None:
    """Compute the rank's columns of ``out = a @ matrix.T + bias``, or ``out +=`` that if ``add`` is 1."""
    linear(a, scales, matrices, layer, out, add, team, 0)


@kernel(fastmath=False)
def project_experts(team: Any, w: Any, layer: Any, jobs: Any, out: Any, add: Any, s: Any) -> None:
    """Compute the rank's columns of the sum of all experts, from all of their inner values."""
    experts_down(w, layer, jobs, out, add, s, team, 0)


@kernel(fastmath=False)
def add_normalized(team: Any, x: Any, outputs: Any, weight: Any, eps: Any, s: Any) -> None:
    """Add the normalized outputs of half a layer to ``x``."""
    add_normalized_rows(x, weight, eps, s.norm_rows, outputs, team, 0)
