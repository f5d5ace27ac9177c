"""What can be known of a model without its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tiny_models import save_model, write_gguf

from fllm import Progress
from fllm_backends.checkpoints.model_description import read_model_description


def silent(progress: Progress) -> None: ...


def test_of_a_gguf_file_everything_but_the_weights_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "cache"))
    file = write_gguf(tmp_path / "tiny.gguf", save_model("Llama", tmp_path))
    found = read_model_description(str(file), None, silent)
    assert (found.max_positions, found.eos_token_ids) == (128, (95,))
    assert found.tokenizer.token_to_id("<|im_end|>") == 95
    assert not list(found.directory.glob("*.safetensors*"))
    assert read_model_description(str(file), None, silent).directory == found.directory


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"max_position_embeddings": 77}, 77),
        ({"text_config": {"max_position_embeddings": 66}}, 66),
        ({}, None),
    ],
)
def test_the_context_length_is_where_its_kind_of_model_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, object], positions: int | None
) -> None:
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "cache"))
    file = write_gguf(tmp_path / "tiny.gguf", save_model("Llama", tmp_path))
    directory = read_model_description(str(file), None, silent).directory
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    assert read_model_description(str(directory), None, silent).max_positions == positions
