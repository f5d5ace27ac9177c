"""Damaged models: exit status 2 before anything is computed, and one line that names the file."""

from __future__ import annotations

import json
import os
import shutil
import struct
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


def set_key(model: Path, file: str, **values: object) -> Path:
    content = json.loads((model / file).read_bytes())
    (model / file).write_text(json.dumps(content | values))
    return model / file


def nest_an_eos_token(model: Path) -> Path:
    return set_key(model, "config.json", eos_token_id=[[1]])


def name_a_token_beyond_the_vocabulary(model: Path) -> Path:
    set_key(model, "config.json", eos_token_id=None)
    return set_key(model, "generation_config.json", eos_token_id=10**6)


def declare_a_giant_context(model: Path) -> Path:
    return set_key(model, "config.json", max_position_embeddings=2**50)


def declare_a_billion_layers(model: Path) -> Path:
    return set_key(model, "config.json", num_hidden_layers=10**9)


def contradict_sizes(model: Path) -> Path:
    return set_key(model, "config.json", num_key_value_heads=3)


def recommend_a_negative_temperature(model: Path) -> Path:
    return set_key(model, "generation_config.json", temperature=-1)


def nest_deeply(model: Path) -> Path:
    (model / "config.json").write_text("[" * 100_000)
    return model / "config.json"


def lie_about_the_header(model: Path) -> Path:
    file = model / WEIGHTS
    file.write_bytes((2**60).to_bytes(8, "little") + file.read_bytes()[8:])
    return file


def leave_the_directory(model: Path) -> Path:
    (model / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": "../../etc/passwd"}}))
    return model / INDEX


def replace_the_tokenizer_by_a_pipe(model: Path) -> Path:
    (model / "tokenizer.json").unlink(missing_ok=True)
    os.mkfifo(model / "tokenizer.json")
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
            nest_an_eos_token: "The EOS token is a list of lists",
            name_a_token_beyond_the_vocabulary: "The EOS token is not in the vocabulary",
            declare_a_giant_context: "The context has 2^50 tokens",
            declare_a_billion_layers: "The model has a billion layers",
            contradict_sizes: "The number of heads contradicts that of keys and values",
            recommend_a_negative_temperature: "generation_config.json has a temperature of -1",
            nest_deeply: "config.json is nested 100,000 deep",
            lie_about_the_header: "The header of the safetensors file declares a length of 2^60",
            leave_the_directory: "The index names a file in another directory",
            replace_the_tokenizer_by_a_pipe: "tokenizer.json is a named pipe",
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


@fault(
    "Start",
    "A GGUF file declares 2^63 tensors, or an array of 2^40 texts",
    must="Status 2 and one line that names the file, in bounded time",
)
def test_a_gguf_that_lies(tmp_path: Path, seen: Seen) -> None:
    array = struct.pack("<QQIIQ", 1, ord("a"), 9, 8, 2**40).replace(b"a" + bytes(7), b"a", 1)
    for tensors, keys in ((2**63, b""), (0, array)):
        file = tmp_path / "tiny.gguf"
        file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, bool(keys)) + keys + bytes(2**20))
        line = start_error(file, FLLM_CACHE=str(tmp_path / "cache"))
        assert "tiny.gguf" in line
        assert "it declares" in line
        seen(f"“{line.replace(str(tmp_path), '')}”")


@fault("Start", "A file named .gguf has another format", must="Status 2 and one line that names the file")
def test_a_file_that_is_not_a_gguf(tmp_path: Path, seen: Seen) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"<html>404</html>" * 100)
    line = start_error(tmp_path / "tiny.gguf")
    assert "is neither a GGUF file" in line
    seen(f"“{line.replace(str(tmp_path), '')}”")
