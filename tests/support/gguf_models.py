"""Write models of transformers as GGUF files, as llama.cpp's converter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

Tensors = dict[str, np.ndarray]
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "smollm3": "smollm3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "granite": "granite",
    "olmo2": "olmo2",
    "olmo3": "olmo2",
    "glm4": "glm4",
    "gpt_oss": "gpt-oss",
    "exaone4": "exaone4",
    "seed_oss": "seed_oss",
    "ernie4_5": "ernie4_5",
}
"""GGUF's architecture of each model type."""
_INTERLEAVED = ("llama", "smollm3", "granite")
_NORMS = {
    "gemma2": {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm"},
    "olmo2": {"post_attention_layernorm": "post_attention_norm"},
    "gpt-oss": {"post_attention_layernorm": "post_attention_norm"},
    "exaone4": {"post_attention_layernorm": "post_attention_norm"},
    "seed_oss": {"post_attention_layernorm": "post_attention_norm"},
    "glm4": {"post_attention_layernorm": "ffn_norm"},
}
_NORMS["gemma3"] = _NORMS["gemma2"]


def write_model(
    path: Path, model: Any, *, quantization: str = "F32", parts: int = 1, architecture: str | None = None
) -> Path:
    """Write a model with a byte-level tokenizer, whose matrices have a type of the gguf library."""
    architecture = architecture or ARCHITECTURES[model.config.model_type]
    writer = gguf.GGUFWriter(
        path, architecture, split_max_tensors=-(-_count(model) // parts) if parts > 1 else 0
    )
    _write_keys(writer, model.config, architecture)
    write_tokenizer(writer, model.config.vocab_size)
    kind = gguf.GGMLQuantizationType[quantization]
    for name, values in gguf_tensors(model, architecture).items():
        columns = values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
        if values.ndim == 1 or not columns or "ffn_gate_inp" in name or kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tokenizer(writer: gguf.GGUFWriter, size: int) -> None:
    """Write a vocabulary of single bytes and a few merges, with ``<s>`` and ``<|im_end|>`` at the end."""
    letters = [chr(code) for code in range(ord("!"), ord("!") + min(size - 5, 94))]
    more = [chr(0x100 + code) for code in range(size - 5 - len(letters))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    merged = ["Ġ" if "Ġ" not in more else "in", "th", "the"]
    writer.add_token_list([*letters, *more, *merged, "<s>", "<|im_end|>"])
    writer.add_token_types([1] * (size - 2) + [3, 3])
    writer.add_token_merges(["t h", "th e", "i n"])
    writer.add_bos_token_id(size - 2)
    writer.add_eos_token_id(size - 1)
    writer.add_chat_template("{{ messages[0]['content'] }}")


def gguf_tensors(model: Any, architecture: str) -> Tensors:
    """Return the tensors of a model by GGUF's names, in its layout."""
    config, tensors = model.config, {}
    names = gguf.get_tensor_name_map(
        next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture),
        config.num_hidden_layers,
    )
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = parameter.float().numpy()
        for part, piece in _divide(name, values, architecture):
            target = _own_name(part, architecture) or names.get_name(part, try_suffixes=(".weight", ".bias"))
            assert target, part
            tensors[target] = np.ascontiguousarray(_layout(part, piece, config, architecture))
    rope = config.rope_parameters
    if rope.get("rope_type") == "longrope":
        for length in ("short", "long"):
            tensors[f"rope_factors_{length}.weight"] = np.array(rope[f"{length}_factor"], np.float32)
    return tensors


def _divide(name: str, values: np.ndarray, architecture: str) -> list[tuple[str, np.ndarray]]:
    """Divide the merged experts of transformers into gate and up."""
    prefix, _, rest = name.partition("experts.")
    if not rest or ".shared_expert" in name:
        return [(name + ".weight" if name.endswith("sinks") else name, values)]
    kind = "bias" if rest.endswith("_bias") else "weight"
    if architecture == "gpt-oss":
        values = values.swapaxes(1, 2) if kind == "weight" else values
        halves = values[:, ::2], values[:, 1::2]
    else:
        halves = tuple(np.split(values, 2, axis=1)) if "gate_up" in rest else (values, values)
    if "gate_up" in rest:
        parts = (f"{prefix}experts.{part}_proj.{kind}" for part in ("gate", "up"))
        return list(zip(parts, halves, strict=True))
    return [(f"{prefix}experts.down_proj.{kind}", values)]


def _own_name(name: str, architecture: str) -> str | None:
    """Return the name of a norm whose name in transformers means another norm in other models."""
    parts = name.split(".")
    target = _NORMS.get(architecture, {}).get(parts[-2])
    return f"blk.{parts[2]}.{target}.{parts[-1]}" if target else None


def _layout(name: str, values: np.ndarray, config: Any, architecture: str) -> np.ndarray:
    module = name.split(".")[-2]
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return values + np.float32(1)
    if architecture in _INTERLEAVED and module in ("q_proj", "k_proj"):
        heads = config.num_attention_heads if module == "q_proj" else config.num_key_value_heads
        return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    return values.reshape(-1) if module == "shared_expert_gate" else values


def _write_keys(writer: gguf.GGUFWriter, config: Any, architecture: str) -> None:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if architecture not in ("phi3", "granite"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if original := rope.get("original_max_position_embeddings"):
        writer.add_rope_scaling_orig_ctx_len(original)
    if experts := getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(
            getattr(config, "moe_intermediate_size", config.intermediate_size)
        )
    if (window := getattr(config, "sliding_window", None)) and architecture != "llama":
        writer.add_sliding_window(window)
    if config.model_type in ("olmo3", "exaone4"):
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if softcap := getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(softcap)
    if architecture == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)


def _count(model: Any) -> int:
    return len(gguf_tensors(model, ARCHITECTURES[model.config.model_type]))
