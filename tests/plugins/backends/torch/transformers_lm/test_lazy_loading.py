"""Weights of classes of transformers go from their files to the packed form a few rows at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.gguf_models import write_model
from support.model_families import build, save
from torch import Tensor, nn

from fllm.errors import ModelError
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.weights import GGUFWeights
from fllm_backends.torch import weight_matrix
from fllm_backends.torch.gguf_source import GGUFSource
from fllm_backends.torch.lazy_weights import (
    LazyTensor,
    expert_matrices,
    lazy_weights,
    matrix_of,
    read_parameters,
)
from fllm_backends.torch.transformers_lm.factory import transformers_decoder
from fllm_backends.torch.transformers_lm.loading import load_model
from fllm_backends.torch.transformers_lm.model_class import read_transformers_model
from fllm_backends.torch.weight_matrix import StackedMatrix, TensorMatrix

CHUNK = 1024


class Recorded(TensorMatrix):
    """A matrix in a file, which records the most rows that are read at once."""

    most = 0

    def rows(self, start: int, stop: int) -> Tensor:
        self.most = max(self.most, stop - start)
        return super().rows(start, stop)


class RecordedWeights:
    """The weights of a directory; matrices stay there."""

    def __init__(self, directory: Path) -> None:
        tensors = load_file(directory / "model.safetensors")
        self.stored = {name: Recorded(each) if each.ndim == 2 else each for name, each in tensors.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def weight(self, name: str) -> Any:
        return self.stored[name]


@pytest.mark.parametrize("name", ["stablelm", "qwen3-moe"])
def test_linear_layers_and_experts_are_never_whole_in_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(name, tmp_path)
    monkeypatch.setattr(weight_matrix, "CHUNK_VALUES", CHUNK)
    weights, steps = RecordedWeights(tmp_path), []
    decoder = transformers_decoder(
        read_transformers_model(tmp_path),
        weights,
        device=torch.device("cpu"),
        dtype=torch.float32,
        seed=0,
        threads=1,
        progress=steps.append,
    )
    packed = {
        name: each
        for name, each in weights.stored.items()
        if isinstance(each, Recorded) and min(each.shape) >= 64 and "embed" not in name
    }
    assert len(packed) > 20
    for name, each in packed.items():
        assert 0 < each.most <= max(16, CHUNK // each.shape[1]), name
    assert steps[-1].done == steps[-1].total > 20
    assert not any(isinstance(each, LazyTensor) for each in decoder._model.parameters())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("{experts}.3.up_proj.weight", None, "the weights lack '{name}'"),
        ("{experts}.3.up_proj.weight", torch.ones(32, 128), "the weight '{name}' has the shape [32, 128]; "),
        (
            "model.layers.0.self_attn.q_proj.weight",
            torch.ones(128, 128, dtype=torch.int8),
            "the weight '{name}' is of type torch.int8; it can't be read without its scales",
        ),
    ],
)
def test_a_wrong_tensor_is_named_in_one_line(
    name: str, change: Tensor | None, message: str, tmp_path: Path
) -> None:
    save("qwen3-moe", tmp_path)
    name = name.format(experts="model.layers.1.mlp.experts")
    weights = RecordedWeights(tmp_path)
    if change is None:
        del weights.stored[name]
    else:
        weights.stored[name] = change
    with pytest.raises(ModelError, match=re.escape(message.format(name=name))) as raised:
        load_model(read_transformers_model(tmp_path), weights, torch.float32)
    assert "\n" not in raised.value.message


def lazy(tensor: Tensor) -> LazyTensor:
    return LazyTensor.create(tensor.to("meta"), tensor)


def rows_of(matrix: Any) -> Tensor:
    return matrix.rows(0, matrix.shape[0])


def test_joined_matrices_stay_apart() -> None:
    gates, ups = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    merged = torch.cat(
        [torch.stack([lazy(each) for each in part], dim=0) for part in (gates, ups)], dim=1
    ).contiguous()
    assert isinstance(merged, LazyTensor)
    matrices = expert_matrices(merged, transposed=False)
    assert all(isinstance(each, StackedMatrix) and len(each.parts) == 2 for each in matrices)
    expected = torch.cat([gates, ups], dim=1)
    assert torch.equal(torch.stack([rows_of(each) for each in matrices]), expected)
    rows = matrix_of(torch.cat([lazy(gates[0]), lazy(ups[0])]))
    assert isinstance(rows, StackedMatrix)
    assert torch.equal(rows_of(rows), expected[0])


def test_the_experts_of_a_gguf_file_are_read_one_by_one(tmp_path: Path) -> None:
    model = build("gpt-oss")
    weights = GGUFWeights(Metadata(write_model(tmp_path / "tiny.gguf", model)))
    source = lazy_weights(GGUFSource(weights, torch.device("cpu"), torch.float32), torch.float32)
    for name in ("gate_up_proj", "down_proj"):
        name = f"model.layers.1.mlp.experts.{name}"
        matrices = expert_matrices(nn.Parameter(source[name][...]), transposed=True)
        experts = torch.stack([rows_of(each) for each in matrices])
        assert torch.equal(experts.transpose(1, 2), model.state_dict()[name]), name


def test_what_is_computed_from_weights_is_computed_when_it_is_read() -> None:
    weight = torch.randn(6, 4, dtype=torch.bfloat16)
    first, second = lazy(weight).to("cpu", dtype=torch.float32).chunk(2, dim=0)
    model = nn.Module()
    model.first, model.again = (each := nn.Parameter(first)), each
    model.register_buffer("second", second.T.contiguous())
    assert model.first.device.type == "meta"
    read_parameters(model, torch.device("cpu"), lambda: None)
    assert torch.equal(model.first, weight[:3].float())
    assert torch.equal(model.second, weight[3:].float().T)
    assert model.first.data_ptr() == model.again.data_ptr(), "tied weights stay tied"
    assert torch.equal(rows_of(matrix_of(second)), weight[3:].float())


def test_a_weight_that_is_not_read_cannot_be_changed() -> None:
    with pytest.raises(NotImplementedError, match="mul_"):
        lazy(torch.ones(2)).mul_(2)
