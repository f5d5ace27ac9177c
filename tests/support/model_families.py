"""Tiny random checkpoints of the model families that people serve, made from transformers' configurations."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

LAYERS = 4
SMALL: dict[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = 9
SLIDING = ["sliding_attention", "full_attention"] * (LAYERS // 2)
LINEAR = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
LOCAL_EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 2}
MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 32,
    "mamba_d_state": 16,
    "mamba_chunk_size": 8,
    "mamba_n_groups": 2,
}
LINEAR_HEADS = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "layer_types": LINEAR,
    "head_dim": 32,
}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "q_lora_rank": 48,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "moe_intermediate_size": 64,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
DEEPSEEK_GROUPS = {"n_group": 2, "topk_group": 1}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}


def longrope(dimensions: int) -> dict[str, Any]:
    """Return the rope parameters of Phi-4-mini, for heads that rotate so many dimensions."""
    pairs = dimensions // 2
    return {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.75,
        "short_factor": [1.0 + 0.1 * pair for pair in range(pairs)],
        "long_factor": [1.0 + 0.9 * pair for pair in range(pairs)],
        "original_max_position_embeddings": 128,
    }


@dataclass(frozen=True)
class Family:
    """One model class of transformers with a small configuration."""

    model: str
    """Name of the class."""
    config: str
    """Name of the configuration's class."""
    values: dict[str, Any] = field(default_factory=dict)
    """Values that differ from those of `SMALL`."""
    text: bool = True
    """Whether the values of `SMALL` belong to the model itself, not to its part for text."""
    refused: str | None = None
    """Why it can't be served: an expression that the message matches."""


def causal(prefix: str, config: str | None = None, refused: str | None = None, **values: Any) -> Family:
    """Return the family of ``<prefix>ForCausalLM``."""
    return Family(f"{prefix}ForCausalLM", config or f"{prefix}Config", values, refused=refused)


def vision(prefix: str, text: dict[str, Any], image: dict[str, Any], **values: Any) -> Family:
    """Return the family of ``<prefix>ForConditionalGeneration``, a vision-language model."""
    parts = {"text_config": SMALL | text, "vision_config": image}
    return Family(f"{prefix}ForConditionalGeneration", f"{prefix}Config", values | parts, text=False)


SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
CLIP = SIGLIP | {"model_type": "clip_vision_model", "projection_dim": 32}
PIXTRAL = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "head_dim": 16,
}
QWEN_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 128,
    "patch_size": 14,
}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}

FAMILIES: dict[str, Family] = {
    # Dense decoders.
    "llama": causal("Llama"),
    "llama 3.1": causal("Llama", rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True),
    "llama with biases": causal("Llama", attention_bias=True, mlp_bias=True),
    "llama with gelu": causal("Llama", hidden_act="gelu"),
    "mistral": causal("Mistral", sliding_window=WINDOW),
    "ministral": causal("Ministral", sliding_window=WINDOW, head_dim=32, layer_types=SLIDING),
    "ministral3": causal(
        "Ministral3",
        head_dim=32,
        rope_parameters=YARN | {"llama_4_scaling_beta": 0.1, "mscale": 1.0, "mscale_all_dim": 1.0},
    ),
    "qwen2": causal("Qwen2"),
    "qwen2 with a window": causal(
        "Qwen2", use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2
    ),
    "qwen3": causal("Qwen3", head_dim=64),
    "smollm3": causal("SmolLM3"),
    "gemma": causal("Gemma", head_dim=32),
    "gemma2": causal(
        "Gemma2",
        head_dim=32,
        sliding_window=WINDOW,
        query_pre_attn_scalar=48,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=4.0,
    ),
    "gemma3": causal(
        "Gemma3",
        "Gemma3TextConfig",
        head_dim=32,
        sliding_window=WINDOW,
        layer_types=SLIDING,
        query_pre_attn_scalar=48,
    ),
    "gemma3n": causal(
        "Gemma3n",
        "Gemma3nTextConfig",
        head_dim=32,
        sliding_window=WINDOW,
        num_hidden_layers=6,
        layer_types=["sliding_attention", "full_attention"] * 3,
        num_kv_shared_layers=2,
        vocab_size_per_layer_input=160,
        hidden_size_per_layer_input=16,
        laurel_rank=8,
        intermediate_size=[192] * 6,
        activation_sparsity_pattern=[0.5, 0.0] * 3,
    ),
    "gemma4": causal(
        "Gemma4",
        "Gemma4TextConfig",
        head_dim=32,
        sliding_window=WINDOW,
        num_hidden_layers=6,
        layer_types=["sliding_attention", "full_attention"] * 3,
        num_kv_shared_layers=2,
        vocab_size_per_layer_input=160,
        hidden_size_per_layer_input=16,
        final_logit_softcapping=10.0,
    ),
    "gemma4 with experts": causal(
        "Gemma4",
        "Gemma4TextConfig",
        head_dim=32,
        sliding_window=WINDOW,
        layer_types=SLIDING,
        vocab_size_per_layer_input=160,
        hidden_size_per_layer_input=0,
        enable_moe_block=True,
        num_experts=8,
        top_k_experts=2,
        moe_intermediate_size=64,
    ),
    "phi": causal(
        "Phi", rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    ),
    "phi3": causal("Phi3", sliding_window=WINDOW),
    "phi4-mini": causal("Phi3", rope_parameters=longrope(24), original_max_position_embeddings=128),
    "granite": causal(
        "Granite",
        embedding_multiplier=6.0,
        attention_multiplier=0.1,
        residual_multiplier=0.4,
        logits_scaling=3.0,
    ),
    "olmo": causal("Olmo", clip_qkv=2.0),
    "olmo2": causal("Olmo2"),
    "olmo3": causal("Olmo3", sliding_window=WINDOW, layer_types=SLIDING),
    "cohere": causal("Cohere", logit_scale=0.3, use_qk_norm=True),
    "cohere2": causal("Cohere2", logit_scale=0.3, sliding_window=WINDOW, layer_types=SLIDING),
    "glm": causal("Glm", head_dim=32),
    "glm4": causal("Glm4", head_dim=32),
    "exaone4": causal("Exaone4", sliding_window=WINDOW, layer_types=SLIDING),
    "seed-oss": causal("SeedOss", head_dim=32),
    "nemotron": causal("Nemotron"),
    "stablelm": causal("StableLm", use_qkv_bias=True, qk_layernorm=True),
    "stablelm parallel": causal("StableLm", use_parallel_residual=True),
    "starcoder2": causal("Starcoder2", sliding_window=WINDOW),
    "apertus": causal("Apertus"),
    "arcee": causal("Arcee"),
    "helium": causal("Helium", head_dim=32),
    "bitnet": causal("BitNet"),
    "ernie4.5": causal("Ernie4_5", head_dim=32),
    "hunyuan": causal("HunYuanDenseV1", head_dim=32),
    "gpt2": Family("GPT2LMHeadModel", "GPT2Config", {"n_positions": 256}),
    "gpt-bigcode": causal("GPTBigCode", n_positions=256, multi_query=True),
    "gpt-neox": causal("GPTNeoX"),
    "opt": causal("OPT", ffn_dim=192, word_embed_proj_dim=128),
    # Experts.
    "mixtral": causal("Mixtral", sliding_window=WINDOW, **LOCAL_EXPERTS),
    "qwen2-moe": causal("Qwen2Moe", shared_expert_intermediate_size=64, **EXPERTS),
    "qwen3-moe": causal("Qwen3Moe", head_dim=32, **EXPERTS),
    "olmoe": causal("Olmoe", num_experts=8, num_experts_per_tok=2),
    "phimoe": causal("Phimoe", **LOCAL_EXPERTS),
    "granitemoe": causal(
        "GraniteMoe",
        embedding_multiplier=6.0,
        attention_multiplier=0.1,
        residual_multiplier=0.4,
        logits_scaling=3.0,
        **LOCAL_EXPERTS,
    ),
    "ernie4.5-moe": causal(
        "Ernie4_5_Moe",
        head_dim=32,
        moe_num_experts=8,
        moe_k=2,
        moe_intermediate_size=64,
        moe_layer_start_index=1,
        moe_num_shared_experts=1,
    ),
    "hunyuan-moe": causal("HunYuanMoEV1", head_dim=32, num_experts=8, moe_topk=2),
    "glm4-moe": causal(
        "Glm4Moe",
        head_dim=32,
        n_routed_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
        use_qk_norm=True,
    ),
    "minimax-m2": causal("MiniMaxM2", head_dim=32, rotary_dim=16, **LOCAL_EXPERTS),
    "solar-open": causal(
        "SolarOpen",
        head_dim=32,
        n_routed_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        n_group=1,
        topk_group=1,
    ),
    "deepseek-v2": causal("DeepseekV2", topk_method="greedy", head_dim=16, **LATENT),
    "deepseek-v3": causal("DeepseekV3", **LATENT, **DEEPSEEK_GROUPS),
    "gpt-oss": causal("GptOss", head_dim=32, sliding_window=WINDOW, layer_types=SLIDING, **LOCAL_EXPERTS),
    "llama4": causal(
        "Llama4",
        "Llama4TextConfig",
        head_dim=32,
        intermediate_size_mlp=192,
        attention_chunk_size=12,
        num_local_experts=4,
        num_experts_per_tok=1,
        floor_scale=16,
        interleave_moe_layer_step=2,
    ),
    # Layers with a state.
    "qwen3-next": causal("Qwen3Next", shared_expert_intermediate_size=64, **EXPERTS, **LINEAR_HEADS),
    "qwen3.5": causal("Qwen3_5", "Qwen3_5TextConfig", **LINEAR_HEADS),
    "qwen3.5-moe": causal(
        "Qwen3_5Moe", "Qwen3_5MoeTextConfig", shared_expert_intermediate_size=64, **EXPERTS, **LINEAR_HEADS
    ),
    "granite4": causal(
        "GraniteMoeHybrid",
        shared_intermediate_size=96,
        layer_types=["mamba", "attention"] * 2,
        **LOCAL_EXPERTS,
        **MAMBA,
    ),
    "falcon-h1": causal("FalconH1", mamba_d_ssm=256, **MAMBA),
    "bamba": causal("Bamba", attn_layer_indices=[1, 3], **MAMBA),
    "nemotron-h": causal(
        "NemotronH",
        layers_block_type=["mamba", "moe", "attention", "mlp"],
        head_dim=32,
        mamba_num_heads=8,
        mamba_head_dim=32,
        ssm_state_size=16,
        time_step_min=1e-7,  # transformers applies it to prompts, not to decode steps
        n_groups=2,
        chunk_size=8,
        n_routed_experts=8,
        moe_intermediate_size=64,
        moe_shared_expert_intermediate_size=64,
    ),
    "lfm2": causal("Lfm2", layer_types=["conv", "full_attention"] * 2, block_auto_adjust_ff_dim=False),
    "lfm2-moe": causal("Lfm2Moe", layer_types=["conv", "full_attention"] * 2, num_dense_layers=1, **EXPERTS),
    "kimi-linear": causal(
        "KimiLinear",
        num_key_value_heads=4,
        layer_types=LINEAR,
        kv_lora_rank=32,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=32,
        linear_head_dim=32,
        linear_num_heads=4,
        num_local_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
    ),
    "mamba2": causal("Mamba2", num_heads=8, head_dim=32, state_size=16, n_groups=2, chunk_size=8, expand=2),
    "mamba": causal("Mamba", state_size=8),
    "jamba": causal(
        "Jamba",
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=4,
        num_experts_per_tok=2,
        mamba_d_state=8,
        mamba_dt_rank=8,
        use_mamba_kernels=False,
    ),
    # Vision-language models, whose text is served.
    "smolvlm": vision(
        "SmolVLM",
        {"model_type": "llama"},
        SIGLIP | {"model_type": "smolvlm_vision"},
        image_token_id=5,
        scale_factor=2,
    ),
    "idefics3": vision(
        "Idefics3",
        {"model_type": "llama"},
        SIGLIP | {"model_type": "idefics3_vision"},
        image_token_id=5,
        scale_factor=2,
    ),
    "qwen2.5-vl": vision(
        "Qwen2_5_VL",
        {"rope_parameters": MROPE},
        QWEN_VISION | {"fullatt_block_indexes": [1]},
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=7,
        vision_end_token_id=8,
    ),
    "qwen3-vl": vision(
        "Qwen3VL",
        {"rope_parameters": MROPE | {"mrope_interleaved": True}, "head_dim": 32},
        QWEN_VISION | {"deepstack_visual_indexes": [0]},
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=7,
        vision_end_token_id=8,
    ),
    "qwen3.5-vl": vision(
        "Qwen3_5",
        LINEAR_HEADS,
        QWEN_VISION,
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=7,
        vision_end_token_id=8,
    ),
    "llava": vision("Llava", {"model_type": "llama"}, CLIP, image_token_index=5),
    "llava-next": vision("LlavaNext", {"model_type": "mistral"}, CLIP, image_token_index=5),
    "gemma3-vl": vision(
        "Gemma3",
        {"head_dim": 32, "sliding_window": WINDOW, "layer_types": SLIDING},
        SIGLIP,
        image_token_index=5,
        boi_token_index=6,
        eoi_token_index=7,
        mm_tokens_per_image=4,
    ),
    "gemma4-vl": vision(
        "Gemma4",
        {
            "head_dim": 32,
            "sliding_window": WINDOW,
            "layer_types": SLIDING,
            "vocab_size_per_layer_input": 160,
            "hidden_size_per_layer_input": 16,
        },
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "position_embedding_size": 64,
        },
        image_token_id=5,
        boi_token_id=6,
        eoi_token_id=7,
        video_token_id=8,
        audio_token_id=9,
    ),
    "mistral3": vision("Mistral3", {"model_type": "mistral", "head_dim": 32}, PIXTRAL, image_token_index=5),
    "llama4-vl": vision(
        "Llama4",
        {
            "head_dim": 32,
            "intermediate_size_mlp": 192,
            "attention_chunk_size": 12,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "floor_scale": 16,
        },
        {
            "hidden_size": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "vision_output_dim": 64,
            "projector_input_dim": 64,
            "projector_output_dim": 64,
        },
        image_token_index=5,
        boi_token_index=6,
        eoi_token_index=7,
    ),
    "internvl": vision(
        "InternVL",
        {"model_type": "qwen2"},
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [28, 28],
            "patch_size": [14, 14],
        },
        image_token_id=5,
    ),
    # What can't be served.
    "bloom": causal("Bloom", refused="attention"),
    "falcon": causal("Falcon", refused="attention"),
    "gptj": causal("GPTJ", n_positions=256, rotary_dim=16, refused="attention"),
    "minimax": causal(
        "MiniMax",
        head_dim=32,
        layer_types=["linear_attention", "full_attention"] * 2,
        refused="cache",
        **LOCAL_EXPERTS,
    ),
    "deepseek-v3.2": causal("DeepseekV32", refused="indexed_attention", **LATENT, **DEEPSEEK_GROUPS),
    "glm-moe-dsa": causal("GlmMoeDsa", refused="indexed_attention", **LATENT),
    "recurrentgemma": causal(
        "RecurrentGemma", lru_width=128, attention_window_size=WINDOW, head_dim=32, refused="cache"
    ),
    "bart": causal(
        "Bart",
        d_model=128,
        decoder_layers=LAYERS,
        decoder_attention_heads=4,
        decoder_ffn_dim=192,
        refused="positions",
    ),
    "doge": causal("Doge", refused="its own attention_mask"),
    "inkling": causal(
        "Inkling",
        "InklingTextConfig",
        head_dim=32,
        n_routed_experts=4,
        moe_intermediate_size=32,
        refused="its own position_bias",
    ),
    "diffllama": causal("DiffLlama", refused="several times"),
    "codegen": causal("CodeGen", n_embd=128, n_layer=2, n_head=4, rotary_dim=16, refused="attention"),
    "t5": Family(
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 128, "d_kv": 32, "d_ff": 192, "num_layers": 2, "num_heads": 4},
        refused="encoder",
    ),
}
"""Families by a name for tests."""


def build(name: str, **changes: Any) -> Any:
    """Return a random model of a family, in float32 and evaluation mode.

    ``changes`` are of its configuration. The weights are spread so that every layer changes the logits.
    """
    family = FAMILIES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        values = (SMALL if family.text else {}) | family.values | changes
        config = getattr(transformers, family.config)(**values)
        torch.manual_seed(1)
        model = getattr(transformers, family.model)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            spread(parameter)
    return model


def spread(parameter: torch.Tensor) -> None:
    """Replace a matrix by a random one; move the elements of a vector away from one another."""
    if parameter.ndim < 2:
        parameter.add_(torch.randn_like(parameter) * 0.2)
    elif parameter.numel():
        parameter.normal_(0.0, 1.5 * parameter.shape[-1] ** -0.5)


def save(name: str, directory: Path, **changes: Any) -> Any:
    """Write a random model of a family to the directory, as `build` makes it, and return it."""
    model = build(name, **changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(directory)
    return model
