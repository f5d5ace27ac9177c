"""Frequencies of rotary embeddings against those of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fllm_backends.checkpoints.rope_config import read_ropes
from fllm_backends.torch import rotary

FULL = "full_attention"
LISTS = {"short_factor": [1.0 + i for i in range(6)], "long_factor": [2.0 + 3 * i for i in range(6)]}
ROPES: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    {"rope_type": "yarn", "factor": 8.0, "mscale": 0.7, "mscale_all_dim": 1.2, "truncate": False},
    {"rope_type": "longrope", "original_max_position_embeddings": 64, **LISTS},
    {"rope_type": "longrope", "original_max_position_embeddings": 64, "factor": 32.0, **LISTS},
    {"rope_type": "longrope", "original_max_position_embeddings": 64, "attention_factor": 1.3, **LISTS},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
]


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("parameters", ROPES, ids=str)
def test_frequencies_and_amplitudes_are_those_of_transformers(parameters: dict[str, Any], long: bool) -> None:
    from transformers import Phi3Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    positions, partial = 256, 0.75
    rope = parameters | {"rope_theta": 5e4, "partial_rotary_factor": partial}
    config = Phi3Config(hidden_size=64, num_attention_heads=4, max_position_embeddings=positions)
    config.rope_parameters = dict(rope)
    config.original_max_position_embeddings = rope.get("original_max_position_embeddings", positions)
    length = int(positions * rope.get("factor", 1.0)) if long else 20
    expected, scale = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, seq_len=length)
    ours = read_ropes({"rope_parameters": rope}, positions, [FULL], Path("config.json"))[FULL]
    switches = long and ours.switch_length is not None
    torch.testing.assert_close(rotary.frequencies(ours, 12, long=switches), expected, rtol=1e-5, atol=0)
    assert rotary.amplitude(ours) == pytest.approx(scale)


def test_each_sequence_has_the_frequencies_of_its_length() -> None:
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 64, **LISTS}
    ours = read_ropes({"rope_parameters": rope}, 256, [FULL], Path("config.json"))[FULL]
    embedding = rotary.RotaryEmbedding(ours, 12, torch.device("cpu"))
    positions = torch.tensor([5, 5, 5])
    cosine, _ = embedding.rotations(positions, torch.tensor([64, 65, 6]))
    for at, long in enumerate([False, True, False]):
        frequencies = rotary.frequencies(ours, 12, long=long)
        expected, _ = rotary.rotations(positions[:1], frequencies, rotary.amplitude(ours))
        torch.testing.assert_close(cosine[at : at + 1], expected)
