"""The architectures of GGUF files with Hugging Face's classes, settings and names of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from fllm_backends.checkpoints.gguf.metadata import Metadata

SINKS = "self_attn.sinks"
SLIDING, FULL = "sliding_attention", "full_attention"


class Family(Struct, frozen=True, kw_only=True):
    """How the files of an architecture differ from Hugging Face's."""

    name: str
    """The class in Hugging Face's library."""
    model_type: str
    tensors: dict[str, str] = {}
    """Names of a layer's tensors, where they differ from `LAYER_TENSORS`."""
    interleaved: bool = False
    """Whether the two rows of a rotary pair are adjacent in the file, but half a head apart in the class."""
    norm_offset: float = 0.0
    """What the file has added to the weights of norms."""
    merges_experts: bool = False
    """Whether the class has all experts in one tensor, in the order of gpt-oss."""
    settings: Callable[[Metadata], dict[str, Any]] = lambda metadata: {}  # noqa: ARG005
    """Return the keys of ``config.json`` that only this architecture has."""


def family(metadata: Metadata) -> Family | None:
    """Return the family of a model; ``None`` for one that is not supported."""
    if metadata.architecture == "llama" and metadata.get("{arch}.expert_count"):
        return _MIXTRAL
    if metadata.architecture == "olmo2" and metadata.get(_WINDOW):
        return _OLMO3
    return FAMILIES.get(metadata.architecture)


def expert_settings(metadata: Metadata) -> dict[str, Any]:
    """Return the keys of ``config.json`` for a mixture of experts. Classes differ in their names."""
    count, inner = metadata.get("{arch}.expert_count"), metadata.get("{arch}.expert_feed_forward_length")
    layers = metadata.require("{arch}.block_count")
    dense = [index for index in range(layers) if f"blk.{index}.ffn_gate_inp.weight" not in metadata.tensors]
    return {
        "num_experts": count,
        "num_local_experts": count,
        "num_experts_per_tok": metadata.require("{arch}.expert_used_count"),
        "moe_intermediate_size": inner,
        "mlp_only_layers": dense,
        "decoder_sparse_step": 1,
    }


def _gemma(metadata: Metadata) -> dict[str, Any]:  # noqa: ARG001
    return {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}


def _gemma2(metadata: Metadata) -> dict[str, Any]:
    return _gemma(metadata) | {
        "query_pre_attn_scalar": _query_scale(metadata, large=46),
        "attn_logit_softcapping": metadata.get("{arch}.attn_logit_softcapping", 50.0),
        "final_logit_softcapping": metadata.get("{arch}.final_logit_softcapping", 30.0),
        "sliding_window": metadata.get(_WINDOW, 4096),
        "layer_types": _layer_types(metadata, 2),
    }


def _gemma3(metadata: Metadata) -> dict[str, Any]:
    window = metadata.get(_WINDOW)
    return _gemma(metadata) | {
        "query_pre_attn_scalar": _query_scale(metadata, large=62),
        "final_logit_softcapping": metadata.get("{arch}.final_logit_softcapping"),
        "sliding_window": window or 4096,
        "layer_types": _layer_types(metadata, 6 if window else 1),
    }


def _query_scale(metadata: Metadata, *, large: int) -> int:
    """Return the number whose root divides the scores. In the largest model it is not the size of a head."""
    heads, hidden = (
        metadata.require("{arch}.attention.head_count"),
        metadata.require("{arch}.embedding_length"),
    )
    size = metadata.get("{arch}.attention.key_length", hidden // heads)
    return int(hidden // heads if metadata.require("{arch}.block_count") == large else size)


def _layer_types(metadata: Metadata, period: int) -> list[str]:
    """Return the kind of each layer: the last of each period has full attention."""
    pattern = metadata.get("{arch}.attention.sliding_window_pattern", period)
    layers = metadata.require("{arch}.block_count")
    if isinstance(pattern, list):
        return [SLIDING if sliding else FULL for sliding in pattern[:layers]]
    return [FULL if (index + 1) % pattern == 0 else SLIDING for index in range(layers)]


def _phi3(metadata: Metadata) -> dict[str, Any]:
    return {
        "sliding_window": metadata.get(_WINDOW) or None,
        "original_max_position_embeddings": metadata.get("{arch}.rope.scaling.original_context_length"),
    }


def _qwen2_moe(metadata: Metadata) -> dict[str, Any]:
    shared = metadata.tensors.get("blk.0.ffn_gate_shexp.weight")
    inner = metadata.get("{arch}.expert_shared_feed_forward_length", shared.shape[0] if shared else 0)
    return expert_settings(metadata) | {
        "qkv_bias": True,
        "norm_topk_prob": False,
        "shared_expert_intermediate_size": inner,
    }


def _qwen3_moe(metadata: Metadata) -> dict[str, Any]:
    return expert_settings(metadata) | {"norm_topk_prob": True}


def _granite(metadata: Metadata) -> dict[str, Any]:
    return {
        "attention_multiplier": metadata.get("{arch}.attention.scale"),
        "embedding_multiplier": metadata.get("{arch}.embedding_scale"),
        "residual_multiplier": metadata.get("{arch}.residual_scale"),
        "logits_scaling": metadata.get("{arch}.logit_scale"),
    }


def _olmo3(metadata: Metadata) -> dict[str, Any]:
    return {"sliding_window": metadata.get(_WINDOW), "layer_types": _layer_types(metadata, 4)}


def _exaone4(metadata: Metadata) -> dict[str, Any]:
    window = metadata.get(_WINDOW)
    return {"sliding_window": window, "layer_types": _layer_types(metadata, 4 if window else 1)}


def _seed_oss(metadata: Metadata) -> dict[str, Any]:
    return {"attention_out_bias": "blk.0.attn_output.bias" in metadata.tensors}


def _ernie(metadata: Metadata) -> dict[str, Any]:
    return {"use_bias": "blk.0.attn_output.bias" in metadata.tensors}


def _gpt_oss(metadata: Metadata) -> dict[str, Any]:
    return expert_settings(metadata) | {
        "intermediate_size": metadata.require("{arch}.expert_feed_forward_length"),
        "sliding_window": metadata.require(_WINDOW),
        "layer_types": _layer_types(metadata, 2),
        "attention_bias": True,
    }


_WINDOW = "{arch}.attention.sliding_window"
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
"""Names of a layer's tensors. ``{}`` stands for an expert: the file has all of them in one tensor."""
_GEMMA_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_OLMO_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_MIXTRAL = Family(
    name="MixtralForCausalLM",
    model_type="mixtral",
    interleaved=True,
    settings=expert_settings,
    tensors={
        "ffn_gate_inp": "block_sparse_moe.gate",
        "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
        "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
        "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
    },
)
_OLMO3 = Family(name="Olmo3ForCausalLM", model_type="olmo3", tensors=_OLMO_NORMS, settings=_olmo3)
FAMILIES = {
    "llama": Family(name="LlamaForCausalLM", model_type="llama", interleaved=True),
    "qwen2": Family(name="Qwen2ForCausalLM", model_type="qwen2"),
    "qwen2moe": Family(name="Qwen2MoeForCausalLM", model_type="qwen2_moe", settings=_qwen2_moe),
    "qwen3": Family(name="Qwen3ForCausalLM", model_type="qwen3"),
    "qwen3moe": Family(name="Qwen3MoeForCausalLM", model_type="qwen3_moe", settings=_qwen3_moe),
    "smollm3": Family(name="SmolLM3ForCausalLM", model_type="smollm3", interleaved=True),
    "gemma": Family(name="GemmaForCausalLM", model_type="gemma", norm_offset=1.0, settings=_gemma),
    "gemma2": Family(
        name="Gemma2ForCausalLM",
        model_type="gemma2",
        tensors=_GEMMA_NORMS,
        norm_offset=1.0,
        settings=_gemma2,
    ),
    "gemma3": Family(
        name="Gemma3ForCausalLM",
        model_type="gemma3_text",
        tensors=_GEMMA_NORMS,
        norm_offset=1.0,
        settings=_gemma3,
    ),
    "phi3": Family(
        name="Phi3ForCausalLM", model_type="phi3", tensors={"ffn_up": "mlp.gate_up_proj"}, settings=_phi3
    ),
    "granite": Family(name="GraniteForCausalLM", model_type="granite", interleaved=True, settings=_granite),
    "olmo2": Family(name="Olmo2ForCausalLM", model_type="olmo2", tensors=_OLMO_NORMS),
    "glm4": Family(
        name="Glm4ForCausalLM",
        model_type="glm4",
        tensors={
            "post_attention_norm": "post_self_attn_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
            "ffn_up": "mlp.gate_up_proj",
        },
    ),
    "exaone": Family(name="LlamaForCausalLM", model_type="llama"),
    "exaone4": Family(
        name="Exaone4ForCausalLM", model_type="exaone4", tensors=_OLMO_NORMS, settings=_exaone4
    ),
    "seed_oss": Family(
        name="SeedOssForCausalLM",
        model_type="seed_oss",
        tensors={"post_attention_norm": "post_attention_layernorm"},
        settings=_seed_oss,
    ),
    "ernie4_5": Family(name="Ernie4_5ForCausalLM", model_type="ernie4_5", settings=_ernie),
    "gpt-oss": Family(
        name="GptOssForCausalLM",
        model_type="gpt_oss",
        tensors={
            "attn_sinks": SINKS,
            "post_attention_norm": "post_attention_layernorm",
            "ffn_gate_inp": "mlp.router",
        },
        merges_experts=True,
        settings=_gpt_oss,
    ),
}
"""GGUF's architectures. In GGUF, Mistral and Mixtral are a llama, and OLMo 3 is an olmo2.

EXAONE 3 has no class in transformers; it is a Llama.
"""
