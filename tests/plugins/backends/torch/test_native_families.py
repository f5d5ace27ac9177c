"""Our own decoders of many families against transformers', on tiny random checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import model_families
from support.native_decoder import check_chunked_logits

LINEAR_ROPE = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
NESTED_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e4},
    "sliding_attention": {"rope_type": "default", "rope_theta": 3e3},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama with gelu": ("llama with gelu", {}),
    "llama with gelu_pytorch_tanh": ("llama", {"hidden_act": "gelu_pytorch_tanh"}),
    "llama with swish": ("llama", {"hidden_act": "swish"}),
    "mixtral": ("mixtral", {}),
    "mixtral without a window": ("mixtral", {"sliding_window": None}),
    "qwen2-moe": ("qwen2-moe", {}),
    "qwen2-moe with norm_topk_prob, a window, no biases": (
        "qwen2-moe",
        {
            "norm_topk_prob": True,
            "use_sliding_window": True,
            "sliding_window": 9,
            "max_window_layers": 3,
            "qkv_bias": False,
        },
    ),
    "qwen3-moe": ("qwen3-moe", {}),
    "qwen3-moe with norm_topk_prob and dense layers": (
        "qwen3-moe",
        {"norm_topk_prob": True, "mlp_only_layers": [1], "decoder_sparse_step": 1, "attention_bias": True},
    ),
    "qwen3-moe with decoder_sparse_step": ("qwen3-moe", {"decoder_sparse_step": 2}),
    "gemma": ("gemma", {}),
    "gemma with gelu, which means its approximation": ("gemma", {"hidden_act": "gelu"}),
    "gemma2": ("gemma2", {}),
    "gemma2 without softcaps": (
        "gemma2",
        {"attn_logit_softcapping": None, "final_logit_softcapping": None, "query_pre_attn_scalar": 20},
    ),
    "gemma3": ("gemma3", {}),
    "gemma3 with scaled full attention": (
        "gemma3",
        {"rope_parameters": NESTED_ROPE, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 3.0},
    ),
    "phi3": ("phi3", {}),
    "phi4-mini": ("phi4-mini", {}),
    "granite": ("granite", {}),
    "granite with biases": ("granite", {"attention_bias": True, "mlp_bias": True}),
    "olmo2": ("olmo2", {}),
    "olmo2 with biases": ("olmo2", {"attention_bias": True}),
    "glm": ("glm", {}),
    "glm4": ("glm4", {}),
    "glm4 with scaled rope and no biases": (
        "glm4",
        {"attention_bias": False, "rope_parameters": LINEAR_ROPE | {"partial_rotary_factor": 0.25}},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_those_of_transformers(variant: str, tmp_path: Path) -> None:
    family, changes = VARIANTS[variant]
    check_chunked_logits(model_families.save(family, tmp_path, **changes), tmp_path)
