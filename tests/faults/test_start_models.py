"""Damaged models: exit status 2 before anything is computed, and one line that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.fault_table import Seen, fault
from support.server_start import start_error
from support.tiny_models import save_model, write_gguf

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("undamaged")
    save_model("Llama", directory, hidden_size=64, head_dim=16)
    return directory


def cut_weights(model: Path) -> Path:
    file = model / WEIGHTS
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def garble_header(model: Path) -> Path:
    file = model / WEIGHTS
    content = file.read_bytes()
    file.write_bytes(content[:8] + b"\xff" * 64 + content[72:])
    return file


def remove_shard(model: Path) -> Path:
    names = list(load_file(model / WEIGHTS))
    shards = dict.fromkeys(names, "model-00001-of-00002.safetensors")
    (model / WEIGHTS).rename(model / "model-00001-of-00002.safetensors")
    shards["model.norm.weight"] = "model-00002-of-00002.safetensors"
    (model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    return model / "model-00002-of-00002.safetensors"


def point_to_the_wrong_shard(model: Path) -> Path:
    tensors = load_file(model / WEIGHTS)
    shards = dict.fromkeys([*tensors, "lm_head.weight"], WEIGHTS)
    save_file({name: each for name, each in tensors.items() if "norm" not in name}, model / WEIGHTS)
    (model / INDEX).write_text(json.dumps({"weight_map": shards}))
    return model / WEIGHTS


def change_shape(model: Path) -> Path:
    return change(model, "model.norm.weight", torch.ones(7))


def change_dtype(model: Path) -> Path:
    return change(model, "model.norm.weight", torch.ones(64, dtype=torch.int8))


def change(model: Path, name: str, tensor: torch.Tensor) -> Path:
    save_file(load_file(model / WEIGHTS) | {name: tensor}, model / WEIGHTS)
    return model / WEIGHTS


def garble_config(model: Path) -> Path:
    (model / "config.json").write_text('{"architectures": ["LlamaFor')
    return model / "config.json"


def remove_weights(model: Path) -> Path:
    (model / WEIGHTS).unlink()
    return model / WEIGHTS


def garble_tokenizer(model: Path) -> Path:
    (model / "tokenizer.json").write_text('{"model": {')
    return model / "tokenizer.json"


def remove_tokenizer(model: Path) -> Path:
    (model / "tokenizer.json").unlink(missing_ok=True)
    return model / "tokenizer.json"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, marks=fault("Start", what, must="Status 2 and one line that names the file"))
        for damage, what in {
            cut_weights: "The model's safetensors file is truncated",
            garble_header: "The header of the safetensors file is garbled",
            remove_shard: "A shard that the index names is missing",
            remove_weights: "The weights are missing",
            point_to_the_wrong_shard: "The index names a shard that lacks the tensor",
            change_shape: "A tensor's shape differs from config.json",
            change_dtype: "A tensor holds integers",
            garble_config: "config.json is truncated",
            garble_tokenizer: "tokenizer.json is truncated",
            remove_tokenizer: "tokenizer.json is missing",
        }.items()
    ],
)
def test_the_error_of_a_damaged_model_names_the_file(
    damage: Callable[[Path], Path], undamaged: Path, tmp_path: Path, seen: Seen
) -> None:
    model = tmp_path / "model"
    shutil.copytree(undamaged, model)
    file = damage(model)
    line = start_error(model)
    assert file.name in line
    seen(f"“{line.replace(str(model), 'MODEL')}”")


@fault("Start", "A GGUF file is truncated", must="Status 2 and one line that names the file")
def test_a_truncated_gguf(undamaged: Path, tmp_path: Path, seen: Seen) -> None:
    file = write_gguf(
        tmp_path / "tiny.gguf", save_model("Llama", tmp_path / "m", hidden_size=64, head_dim=16)
    )
    file.write_bytes(file.read_bytes()[:-5000])
    line = start_error(file, FLLM_CACHE=str(tmp_path / "cache"))
    assert "tiny.gguf" in line
    seen(f"“{line.replace(str(tmp_path), '')}”")


@fault("Start", "A file named .gguf has another format", must="Status 2 and one line that names the file")
def test_a_file_that_is_not_a_gguf(tmp_path: Path, seen: Seen) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"<html>404</html>" * 100)
    line = start_error(tmp_path / "tiny.gguf")
    assert "is neither a GGUF file" in line
    seen(f"“{line.replace(str(tmp_path), '')}”")
