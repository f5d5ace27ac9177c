"""GGUF files of each architecture hold what the model of transformers holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from support.gguf_models import write_model
from support.model_families import build

from fllm.errors import ModelError
from fllm_backends.checkpoints.gguf.config import config
from fllm_backends.checkpoints.gguf.families import FAMILIES
from fllm_backends.checkpoints.gguf.header import TensorInfo
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.tensors import TensorRows
from fllm_backends.checkpoints.gguf.weights import GGUFWeights
from fllm_backends.torch.checkpoint import Checkpoint

FULL, WINDOW = "full_attention", "sliding_attention"
CHANGES: dict[str, dict[str, Any]] = {
    "mixtral": {"sliding_window": None},
    "gemma2": {"query_pre_attn_scalar": 32},
    "gemma3": {"query_pre_attn_scalar": 32, "num_hidden_layers": 6, "layer_types": [WINDOW] * 5 + [FULL]},
    "qwen3-moe": {"norm_topk_prob": True},
}
"""What a file can't say has the value that llama.cpp assumes."""
ONLY_IN_A_FILE = ("bos_token_id", "eos_token_id", "pad_token_id", "dtype", "transformers_version")


def effective(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what transformers makes of a configuration."""
    import transformers

    present = {key: value for key, value in settings.items() if value is not None}
    values = transformers.CONFIG_MAPPING[settings["model_type"]].from_dict(present).to_dict()
    if isinstance(values.get("rope_parameters"), dict):
        values["rope_parameters"].pop("partial_rotary_factor", None)
    return {key: value for key, value in values.items() if key not in ONLY_IN_A_FILE}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        *("llama", "qwen2", "qwen3", "smollm3", "gemma", "gemma2", "gemma3", "phi3", "granite", "olmo2"),
        *("glm4", "mixtral", "qwen2-moe", "qwen3-moe", "gpt-oss"),
        *("exaone4", "seed-oss", "ernie4.5"),
    ],
)
def test_a_file_has_the_weights_and_settings_of_the_model(name: str, tmp_path: Path) -> None:
    model = build(name, **CHANGES.get(name, {}))
    model.save_pretrained(tmp_path / "model")
    metadata = Metadata(write_model(tmp_path / "tiny.gguf", model))
    before, after = Checkpoint(tmp_path / "model"), GGUFWeights(metadata)
    assert set(before) == set(after)
    for weight in before:
        wanted = before.read(weight).numpy()
        found = after.read(weight)
        assert found.shape == wanted.shape, weight
        assert np.allclose(found, wanted, rtol=0, atol=1e-6), weight
    old = effective(json.loads((tmp_path / "model" / "config.json").read_text()))
    new = effective(json.loads(json.dumps(config(metadata))))
    unequal = {key: (new.get(key), value) for key, value in old.items() if new.get(key) != value}
    unequal = {key: pair for key, pair in unequal.items() if pair[1] is not None}
    assert not unequal.keys() - {"rope_parameters", "original_max_position_embeddings"}, unequal


def test_exaone_3_is_a_llama_with_other_rotary_pairs(tmp_path: Path) -> None:
    model = build("llama")
    metadata = Metadata(write_model(tmp_path / "tiny.gguf", model, architecture="exaone"))
    assert config(metadata)["architectures"] == ["LlamaForCausalLM"]
    weights = GGUFWeights(metadata)
    for name, wanted in model.state_dict().items():
        assert np.allclose(weights.read(name), wanted.numpy(), rtol=0, atol=1e-6), name


def test_the_rotary_factors_of_long_texts_are_part_of_the_configuration(tmp_path: Path) -> None:
    model = build("phi4-mini")
    rope = config(Metadata(write_model(tmp_path / "tiny.gguf", model)))["rope_parameters"]
    wanted = model.config.rope_parameters
    assert rope["rope_type"] == "longrope"
    for key in ("short_factor", "long_factor"):
        assert np.allclose(rope[key], wanted[key]), key
    assert rope["partial_rotary_factor"] == wanted["partial_rotary_factor"]
    assert rope["original_max_position_embeddings"] == wanted["original_max_position_embeddings"]


def test_each_type_that_llama_cpp_writes_is_read() -> None:
    kinds = gguf.GGMLQuantizationType
    read_here = {kinds.Q1_0}
    internal = {kinds.Q8_1, kinds.Q8_K, kinds.F64}  # of activations; no file of weights has them
    integers = {kind for kind in kinds if kind.name[0] == "I" and kind.name[1:].isdecimal()}
    for kind in set(kinds) - internal - integers - read_here:
        values, size = gguf.GGML_QUANT_SIZES[kind]
        rows = gguf.quants.dequantize(np.zeros((2, size), np.uint8), kind)
        assert rows.shape == (2, values), kind.name


def test_an_unknown_architecture_is_one_line_with_those_that_are_known(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", build("llama"))
    path.write_bytes(path.read_bytes().replace(b"llama", b"lemma"))
    metadata = Metadata(path)
    with pytest.raises(ModelError) as caught:
        config(metadata)
    assert all(name in caught.value.message for name in ("'lemma'", *FAMILIES))


@pytest.mark.parametrize("chosen", [1, 2, 3])
def test_any_part_of_a_split_model_is_the_model(chosen: int, tmp_path: Path) -> None:
    model = build("llama")
    whole = GGUFWeights(Metadata(write_model(tmp_path / "whole.gguf", model)))
    write_model(tmp_path / "tiny.gguf", model, parts=3)
    parts = sorted(tmp_path.glob("tiny-*.gguf"))
    assert [part.name for part in parts] == [f"tiny-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    metadata = Metadata(parts[chosen - 1])
    assert metadata.files == parts
    split = GGUFWeights(metadata)
    assert set(split) == set(whole)
    assert all(np.array_equal(split.read(name), whole.read(name)) for name in whole)
    assert config(metadata)["hidden_size"] == 128


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny.gguf", build("llama"), parts=3)
    (tmp_path / "tiny-00003-of-00003.gguf").unlink()
    with pytest.raises(ModelError, match=r"is one of 3 parts, of which tiny-00003-of-00003.gguf is missing"):
        Metadata(tmp_path / "tiny-00001-of-00003.gguf")


def test_a_part_under_another_name_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny.gguf", build("llama"), parts=3)
    (tmp_path / "tiny-00001-of-00003.gguf").rename(tmp_path / "tiny.gguf")
    with pytest.raises(ModelError, match="is one of 3 parts, but it is not named"):
        Metadata(tmp_path / "tiny.gguf")


def test_one_bit_weights_are_signs_times_a_scale(tmp_path: Path) -> None:
    content = np.zeros((2, 18), np.uint8)
    content[:, :2] = np.array([0.5, 2.0], np.float16)[:, None].view(np.uint8)
    content[0, 2], content[1, 17] = 0b101, 0x80
    (tmp_path / "rows").write_bytes(content.tobytes())
    info = TensorInfo(tmp_path / "rows", (2, 128), gguf.GGMLQuantizationType.Q1_0, 0)
    rows = TensorRows("a", info).rows(0, 2)
    assert rows[0, :4].tolist() == [0.5, -0.5, 0.5, -0.5]
    assert rows[1, 126:].tolist() == [-2.0, 2.0]
