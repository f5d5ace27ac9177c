"""A class of transformers is checked before its weights are downloaded or read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.model_families import build, longrope, save
from support.quantized_models import change_config

from fllm.config import BackendConfig, Device
from fllm.errors import ConfigError, ModelError
from fllm.testing import echo_model
from fllm_backends.torch import hardware
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner
from fllm_backends.torch.transformers_lm.class_check import check_class
from fllm_backends.torch.transformers_lm.model_class import read_transformers_model

BIG = {"hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 4096}


def load(directory: Path, quantization: str | None = None) -> None:
    config = BackendConfig(model=str(directory), quantization=quantization, model_impl="transformers")
    TorchRunner(read_torch_config(config), Device("cpu"), 1).load(lambda _: None)


def configuration(name: str, directory: Path, **values: object) -> Path:
    """A directory without weights."""
    build(name, **values).config.save_pretrained(echo_model(directory))
    return directory


def test_packed_weights_are_counted_as_they_are_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = configuration("stablelm", tmp_path, **BIG)
    size = check_class(read_transformers_model(directory))
    layers, table = 4 * (2.5 * 1024**2 + 3 * 1024 * 4096), 4096 * 1024
    assert size.packable == pytest.approx(layers + table, rel=0.1)
    assert table < size.others < 1.01 * table
    monkeypatch.setattr(hardware, "free_memory", lambda device: int(1.5 * size.packable + 4 * table))
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        load(directory)  # it fits
    with pytest.raises(ConfigError, match="does not fit into the memory") as raised:
        load(directory, "none")
    assert "(float32)" in raised.value.message
    monkeypatch.setattr(hardware, "free_memory", lambda device: size.packable)
    with pytest.raises(ConfigError, match=re.escape("(packed, embeddings in float32)")):
        load(directory)


def test_a_class_that_cannot_be_served_is_refused_without_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be served: its attention does not go through"):
        load(configuration("bloom", tmp_path))


def test_a_tied_head_is_packed_beside_the_embedding(tmp_path: Path) -> None:
    model = save("cohere", tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    size = check_class(read_transformers_model(tmp_path))
    total = sum(parameter.numel() for parameter in model.parameters())
    assert size.packable + size.others == total + model.lm_head.weight.numel()


@pytest.mark.parametrize(("factor", "positions"), [(4.0, 1024), (1.5, 384)])
def test_a_linear_rope_extends_the_context(factor: float, positions: int, tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "rope_theta": 1e4, "factor": factor}
    directory = configuration("olmo", tmp_path, rope_parameters=rope)
    assert read_transformers_model(directory).max_positions == positions


def test_longrope_by_type_of_layer_is_refused(tmp_path: Path) -> None:
    plain = {"rope_type": "default", "rope_theta": 1e4}
    rope = {"full_attention": longrope(32), "sliding_attention": plain}
    directory = configuration("gemma3", tmp_path)
    change_config(directory, rope_parameters=rope)
    with pytest.raises(ModelError, match=r"^rope_parameters: longrope for some types of layers"):
        read_transformers_model(directory)
