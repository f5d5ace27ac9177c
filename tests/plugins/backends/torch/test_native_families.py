"""Our own decoders of many families against transformers', on tiny random checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support import model_families
from support.native_decoder import check_chunked_logits

from fllm_backends.checkpoints.architecture import read_architecture

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


def rewrite(
    directory: Path, rename: Callable[[str], str | None], *, tensors: dict[str, Any] | None = None
) -> None:
    """Rename the tensors of a checkpoint, drop those named None, and add ``tensors``."""
    file = directory / "model.safetensors"
    renamed = {rename(name): tensor for name, tensor in load_file(file).items()}
    renamed.pop(None, None)
    save_file(renamed | (tensors or {}), file)


def set_config(directory: Path, **changes: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("family", ["mixtral", "qwen3-moe"])
def test_experts_may_be_merged_or_apart(family: str, tmp_path: Path) -> None:
    theirs = model_families.save(family, tmp_path)
    published = set(load_file(tmp_path / "model.safetensors"))
    apart = {
        "mixtral": "model.layers.0.block_sparse_moe.experts.7.w2.weight",
        "qwen3-moe": "model.layers.0.mlp.experts.7.down_proj.weight",
    }
    assert apart[family] in published
    merged = {name: tensor.clone() for name, tensor in theirs.state_dict().items() if ".mlp." in name}
    rewrite(tmp_path, lambda name: None if "experts." in name or "moe" in name else name, tensors=merged)
    assert "model.layers.0.mlp.experts.gate_up_proj" in set(load_file(tmp_path / "model.safetensors"))
    check_chunked_logits(theirs, tmp_path, lengths=(20, 15, 3))


@pytest.mark.parametrize("prefix", ["", "model.language_model.", "language_model.model."])
def test_the_decoder_may_have_another_prefix_or_none(prefix: str, tmp_path: Path) -> None:
    theirs = model_families.save("qwen3", tmp_path, tie_word_embeddings=True)
    rewrite(tmp_path, lambda name: name.replace("model.", prefix, 1) if name != "lm_head.weight" else None)
    check_chunked_logits(theirs, tmp_path, lengths=(20, 15, 3))


def test_the_head_of_a_multimodal_model_may_have_its_prefix(tmp_path: Path) -> None:
    theirs = model_families.save("llama", tmp_path)
    rewrite(tmp_path, lambda name: f"language_model.{name}")
    check_chunked_logits(theirs, tmp_path, lengths=(20, 15, 3))


def test_the_text_part_of_a_multimodal_gemma_3_is_served(tmp_path: Path) -> None:
    theirs = model_families.save("gemma3-vl", tmp_path)
    assert read_architecture(tmp_path).name == "Gemma3ForConditionalGeneration"
    check_chunked_logits(theirs, tmp_path, lengths=(20, 15, 3))


def test_the_model_type_is_enough(tmp_path: Path) -> None:
    theirs = model_families.save("granite", tmp_path)
    set_config(tmp_path, architectures=None)
    check_chunked_logits(theirs, tmp_path, lengths=(20, 15, 3))


def test_projections_may_be_merged_or_apart(tmp_path: Path) -> None:
    theirs = model_families.save("phi3", tmp_path)
    apart = {}
    for index, layer in enumerate(theirs.model.layers):
        qkv = layer.self_attn.qkv_proj.weight.detach().split([128, 64, 64])
        gate_up = layer.mlp.gate_up_proj.weight.detach().chunk(2)
        names = [f"self_attn.{name}_proj" for name in "qkv"] + ["mlp.gate_proj", "mlp.up_proj"]
        for name, part in zip(names, (*qkv, *gate_up), strict=True):
            apart[f"model.layers.{index}.{name}.weight"] = part.clone()
    rewrite(tmp_path, lambda name: None if "qkv_proj" in name or "gate_up" in name else name, tensors=apart)
    check_chunked_logits(theirs, tmp_path, lengths=(20, 15, 3))
