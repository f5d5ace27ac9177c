"""Configurations are read as transformers' own classes read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fllm.errors import ModelError
from fllm_backends.checkpoints.architecture import Architecture, read_architecture
from fllm_backends.checkpoints.rope_config import UnsupportedModelError

SIZES = {
    "hidden_size": 512,
    "intermediate_size": 256,
    "num_hidden_layers": 8,
    "num_attention_heads": 64,
    "vocab_size": 100,
}
LLAMA = SIZES | {"num_attention_heads": 8, "architectures": ["LlamaForCausalLM"]}
LONG = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
MODEL_TYPES = [
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "smollm3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi3",
    "granite",
    "olmo2",
    "glm",
    "glm4",
]
FIRST_LAYERS_SLIDE = ["sliding_attention"] * 3 + ["full_attention"] * 5
CHANGES: list[dict[str, Any]] = [
    {},
    {"sliding_window": 77},
    {"sliding_window": 77, "use_sliding_window": True, "max_window_layers": 5},
    {"sliding_window": 77, "use_sliding_window": True, "layer_types": FIRST_LAYERS_SLIDE},
    {"rope_theta": 123456.0, "tie_word_embeddings": True, "rms_norm_eps": 1e-4},
    {"rope_theta": 123456.0, "tie_word_embeddings": False, "attention_bias": True},
    {"head_dim": 32, "num_key_value_heads": 16, "hidden_act": "gelu", "max_position_embeddings": 4096},
]


def read(directory: Path, config: dict[str, Any]) -> Architecture:
    (directory / "config.json").write_bytes(msgspec.json.encode(config))
    return read_architecture(directory)


def windows(config: Any) -> list[int | None]:
    """Return the window of each layer, as transformers' attention modules choose it."""
    window = getattr(config, "sliding_window", None) or None
    if config.model_type in ("mistral", "mixtral", "qwen3_moe", "phi3"):
        return [window] * config.num_hidden_layers
    if config.model_type in ("llama", "gemma", "granite", "olmo2", "glm", "glm4"):
        return [None] * config.num_hidden_layers
    return [window if each == "sliding_attention" else None for each in config.layer_types]


def thetas(config: Any) -> set[float]:
    rope = config.rope_parameters
    return {each["rope_theta"] for each in (rope.values() if "rope_theta" not in rope else [rope])}


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: " ".join(changes) or "defaults")
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_missing_and_given_keys_are_read_as_transformers_reads_them(
    model_type: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = SIZES | {"model_type": model_type} | changes
    if model_type == "mistral" and "layer_types" in changes:
        model_type = "ministral"  # as transformers' AutoConfig does
    theirs = CONFIG_MAPPING[model_type](**(config | {"model_type": model_type}))
    ours = read(tmp_path, config)
    assert ours.kv_heads == theirs.num_key_value_heads
    assert ours.head_dim == (getattr(theirs, "head_dim", None) or 8)
    assert ours.norm_eps == theirs.rms_norm_eps
    assert ours.tied == theirs.tie_word_embeddings
    assert ours.max_positions == theirs.max_position_embeddings
    assert [layer.window for layer in ours.layers] == windows(theirs)
    assert {rope.rope_theta for rope in ours.ropes} == thetas(theirs)
    act = getattr(theirs, "hidden_activation", None) or theirs.hidden_act
    assert ours.activation == {"gelu_pytorch_tanh": "gelu_tanh"}.get(act, act)


@pytest.mark.parametrize("model_type", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_experts_are_read_as_transformers_reads_them(model_type: str, tmp_path: Path) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    theirs = CONFIG_MAPPING[model_type]()
    shape = read(tmp_path, SIZES | {"model_type": model_type}).experts
    assert shape is not None
    assert (shape.count, shape.per_token) == (theirs.num_experts, theirs.num_experts_per_tok)
    assert shape.intermediate_size == getattr(theirs, "moe_intermediate_size", SIZES["intermediate_size"])
    assert shape.shared_intermediate_size == getattr(theirs, "shared_expert_intermediate_size", 0)
    assert shape.normalized == getattr(theirs, "norm_topk_prob", True)


def test_keys_of_other_classes_change_nothing(tmp_path: Path) -> None:
    others = {
        "num_experts": 8,
        "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": 256,
        "logits_scaling": 8.0,
        "residual_multiplier": 0.2,
    }
    assert read(tmp_path, LLAMA | others) == read(tmp_path, LLAMA)
    assert not read(tmp_path, LLAMA).features


def test_the_published_gemma_3_4b_names_only_what_differs_from_defaults(tmp_path: Path) -> None:
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    raw = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    a = read(tmp_path, raw)
    assert (a.vocab_size, a.heads, a.kv_heads, a.head_dim) == (262_208, 8, 4, 256)
    assert (a.max_positions, a.tied, a.attention_scale, a.activation) == (131_072, True, 1 / 16, "gelu_tanh")
    assert [layer.window for layer in a.layers[:7]] == [1024] * 5 + [None, 1024]
    ropes = [a.ropes[a.layers[index].rope] for index in (0, 5)]
    assert [(r.rope_theta, r.rope_type, r.factor) for r in ropes] == [(1e4, "default", 1), (1e6, "linear", 8)]
    del raw["architectures"]
    assert read(tmp_path, raw) == a


def test_phi_4_mini_rotates_three_quarters_of_a_head_and_changes_at_4096(tmp_path: Path) -> None:
    factors = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
    raw = {
        "architectures": ["Phi3ForCausalLM"],
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "vocab_size": 200_064,
        "max_position_embeddings": 131_072,
        "original_max_position_embeddings": 4096,
        "partial_rotary_factor": 0.75,
        "rope_scaling": factors,
        "rope_theta": 10000.0,
        "sliding_window": 262_144,
        "tie_word_embeddings": True,
    }
    a = read(tmp_path, raw)
    assert (a.rotary_dim, a.head_dim, a.long_context_start, a.ropes[0].factor) == (96, 128, 4096, 32)
    assert read(tmp_path, raw | {"rope_scaling": factors | {"type": "su"}}) == a
    with pytest.raises(ModelError, match="short_factor has 48 factors for 64 frequencies"):
        read(tmp_path, raw | {"partial_rotary_factor": 1.0})


@pytest.mark.parametrize(
    ("scaling", "length"),
    [
        ({"type": "linear", "factor": 4.0}, 16384),  # vicuna-7b-v1.5-16k
        ({"rope_type": "dynamic", "factor": 2.5}, 10240),
        ({"rope_type": "yarn", "factor": 4.0}, 16384),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 1024}, 4096),
        (LONG | {"original_max_position_embeddings": 1024, "factor": 4.0}, 4096),
    ],
    ids=lambda each: str(each.get("type") or each.get("rope_type")) if isinstance(each, dict) else "",
)
def test_the_factor_extends_the_context_that_is_declared(
    scaling: dict[str, Any], length: int, tmp_path: Path
) -> None:
    raw = LLAMA | {"max_position_embeddings": 4096, "head_dim": 8, "rope_scaling": scaling}
    assert read(tmp_path, raw).max_positions == length


def test_rope_parameters_may_be_nested_by_layer_type(tmp_path: Path) -> None:
    nested = {
        "full_attention": {"rope_type": "default", "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    }
    assert [r.rope_theta for r in read(tmp_path, LLAMA | {"rope_parameters": nested}).ropes] == [5e5]
    qwen = LLAMA | {
        "architectures": ["Qwen3ForCausalLM"],
        "layer_types": FIRST_LAYERS_SLIDE,
        "use_sliding_window": True,
        "num_key_value_heads": 8,
    }
    a = read(tmp_path, qwen | {"rope_parameters": nested})
    assert [a.ropes[layer.rope].rope_theta for layer in a.layers] == [2e4] * 3 + [5e5] * 5
    with pytest.raises(ModelError, match="rope_parameters lack the layer type 'sliding_attention'"):
        read(tmp_path, qwen | {"rope_parameters": {"full_attention": {"rope_theta": 5e5}}})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "does not support GPT2LMHeadModel"),
        ({"architectures": None, "model_type": "gpt2"}, "does not support model_type=gpt2"),
        ({"hidden_act": "relu2"}, "hidden_act 'relu2' is not supported"),
        ({"rope_parameters": {"rope_type": "proportional"}}, "rope type 'proportional' is not supported"),
        ({"rope_scaling": {"type": ["linear"]}}, "rope type .* is not supported"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is not supported for LlamaForCausalLM"),
        ({"layer_types": ["chunked_attention"] * 8}, "the layer type 'chunked_attention' is not supported"),
        (
            {"architectures": ["Gemma3ForCausalLM"], "use_bidirectional_attention": True},
            "use_bidirectional_attention is not supported",
        ),
    ],
)
def test_what_our_decoders_lack_is_left_to_transformers(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        read(tmp_path, LLAMA | config)


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": 7},
        {"rope_parameters": {"full_attention": 7}},
        {"architectures": ["Gemma3ForCausalLM"], "rope_parameters": {"full_attention": 7}},
        {"architectures": ["Gemma3ForCausalLM"], "rope_scaling": [1]},
        {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": 7},
        {"architectures": ["Gemma2ForCausalLM"], "hidden_activation": 7},
        {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 4, "num_experts_per_tok": 5},
        {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 10**9},
        {"architectures": ["GraniteForCausalLM"], "logits_scaling": 0},
        {"rope_scaling": {"type": "longrope"}},
        {"rope_scaling": LONG | {"original_max_position_embeddings": 0}},
        {"rope_scaling": {"type": "dynamic"}},
        {"rope_scaling": {"type": "linear", "factor": 1e6}, "max_position_embeddings": 2**27},
        {"architectures": ["Phi3ForCausalLM"], "partial_rotary_factor": -0.5},
        {"architectures": ["Glm4ForCausalLM"], "head_dim": 8, "partial_rotary_factor": 0.1},
    ],
    ids=str,
)
def test_a_malformed_configuration_is_an_error_in_one_line(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        read(tmp_path, LLAMA | config)
    assert not isinstance(error.value, UnsupportedModelError)
    assert "\n" not in str(error.value)
