"""Our decoders against transformers' own, on tiny random configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from support.native_decoder import Sequences, check_chunked_logits, native_decoder
from support.tiny_models import TINY, save_model

from fllm.errors import ModelError
from fllm_backends.checkpoints.architecture import read_architecture

YARN = {"rope_type": "yarn", "rope_theta": 5e3, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 2.0, 3.0, 8.0],
    "long_factor": [1.0, 2.0, 3.0, 8.0],
    "attention_factor": 1.0,
    "original_max_position_embeddings": 128,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama tied": ("Llama", {"tie_word_embeddings": True}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3.1": ("Llama", {"rope_parameters": LLAMA3}),
    "llama stretched": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    "llama dynamic": (
        "Llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}},
    ),
    "llama with one kv head": ("Llama", {"num_key_value_heads": 1}),
    "llama with all kv heads": ("Llama", {"num_key_value_heads": 4}),
    "llama with wide heads": ("Llama", {"head_dim": 24}),
    "llama with divisors": ("Llama", {"rope_parameters": LONG}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral with a window": ("Mistral", {"sliding_window": 7}),
    "qwen2": ("Qwen2", {}),
    "qwen2 with yarn": ("Qwen2", {"rope_parameters": YARN}),
    "qwen2 with a window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3 tied, with biases": (
        "Qwen3",
        {"head_dim": 16, "tie_word_embeddings": True, "attention_bias": True},
    ),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 5, "pad_token_id": 0}),
    "smollm3 with a window": (
        "SmolLM3",
        {"no_rope_layers": [1, 0, 1], "use_sliding_window": True, "sliding_window": 6, "pad_token_id": 0},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_those_of_transformers(variant: str, tmp_path: Path) -> None:
    family, changes = VARIANTS[variant]
    check_chunked_logits(save_model(family, tmp_path, **changes), tmp_path)


def test_neighbours_of_other_lengths_change_nothing_beyond_rounding(tmp_path: Path) -> None:
    save_model("Llama", tmp_path)
    model = native_decoder(tmp_path)
    lengths = (40, 33, 9, 64)
    sequences = [[(7 * i + length) % 96 for i in range(length)] for length in lengths]
    together = Sequences(model, *sequences)
    together.logits(*((0, length - 1) for length in lengths))
    batch = together.logits(*((length - 1, 1) for length in lengths))
    for sequence, logits in zip(sequences, batch, strict=True):
        alone = Sequences(model, sequence)
        alone.logits((0, len(sequence) - 1))
        torch.testing.assert_close(logits, alone.logits((len(sequence) - 1, 1))[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "config", "message"),
    [
        (
            "architectures",
            {"architectures": ["GPT2LMHeadModel"]},
            "does not support GPT2LMHeadModel; supported: Llama",
        ),
        ("rope", {"rope_parameters": {"rope_type": "spiral"}}, "rope type 'spiral' is not supported"),
        ("factor", {"rope_scaling": {"type": "linear"}}, "needs a factor"),
        ("partial", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("act", {"hidden_act": "relu"}, "hidden_act 'relu'"),
        ("type", {"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_what_we_do_not_have_is_refused_by_name(
    key: str, config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    raw = TINY | {"architectures": ["LlamaForCausalLM"]} | config
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(raw))
    with pytest.raises(ModelError, match=message):
        read_architecture(tmp_path)


def test_the_rope_keys_of_older_configurations_are_read(tmp_path: Path) -> None:
    scaling = {"type": "linear", "factor": 2.0}
    raw = TINY | {"architectures": ["LlamaForCausalLM"], "rope_theta": 5e5, "rope_scaling": scaling}
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(raw))
    rope = read_architecture(tmp_path).ropes[0]
    assert (rope.rope_theta, rope.rope_type, rope.factor) == (5e5, "linear", 2.0)
