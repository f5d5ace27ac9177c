"""Oddities of the configurations of published models, which must load."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from support.tiny_models import save_model

from fllm.testing.echo import echo_model
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard, SamplingDefaults
from fllm_backends.checkpoints.architecture import read_architecture
from fllm_backends.checkpoints.model_card import read_model_card

CONFIG, GENERATION, TOKENIZER_CONFIG = "config.json", "generation_config.json", "tokenizer_config.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (echo_model(tmp_path) / CONFIG).unlink()
    save_model("Llama", tmp_path, hidden_size=64, head_dim=16, vocab_size=256)
    return tmp_path


def change(directory: Path, file: str, **changes: Any) -> None:
    content = json.loads((directory / file).read_bytes())
    (directory / file).write_text(json.dumps(content | changes))


def load(directory: Path) -> ModelCard:
    Tokenizer.load(directory)
    return read_model_card(directory, read_architecture(directory), "", {})


ODD: list[tuple[str, dict[str, Any]]] = [
    (CONFIG, {"eos_token_id": [7, 8]}),
    (CONFIG, {"eos_token_id": None, "pad_token_id": -1, "bos_token_id": None}),
    (CONFIG, {"rope_parameters": None, "rope_theta": 1e6, "rope_scaling": None}),
    (CONFIG, {"num_key_value_heads": None, "head_dim": None, "quantization_config": None}),
    (CONFIG, {"max_position_embeddings": 10_485_760}),
    (CONFIG, {"time_step_limit": [0.0, float("inf")], "unknown": float("nan")}),
    (
        CONFIG,
        {
            "rope_parameters": None,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 64,
                "rope_type": "llama3",
                "type": None,
            },
        },
    ),
    (GENERATION, {"temperature": None, "top_p": None, "top_k": 0, "max_length": 20}),
    (GENERATION, {"temperature": 0, "top_k": -1, "top_p": 1.0, "min_p": 0.0}),
    (GENERATION, {"top_k": 50.0, "repetition_penalty": 1, "transformers_version": "4.51.0"}),
    (GENERATION, {"do_sample": False, "temperature": -1, "top_p": 0.0, "max_new_tokens": 0}),
    (TOKENIZER_CONFIG, {"model_max_length": 1000000000000000019884624838656}),
    (TOKENIZER_CONFIG, {"eos_token": {"__type": "AddedToken", "content": "x"}, "pad_token": None}),
]


@pytest.mark.parametrize(("file", "changes"), ODD, ids=[f"{file} {changes}"[:60] for file, changes in ODD])
def test_an_oddity_loads(file: str, changes: dict[str, Any], model: Path) -> None:
    change(model, file, **changes)
    load(model)


def test_a_model_that_does_not_sample_recommends_nothing(model: Path) -> None:
    change(model, GENERATION, do_sample=False, temperature=0.0, top_p=0.0)
    assert load(model).defaults == SamplingDefaults()


def test_of_a_key_that_occurs_twice_the_last_value_counts_with_a_warning(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (model / CONFIG).read_text().replace("{", '{"torch_dtype": "float32", "vocab_size": 1,', 1)
    (model / CONFIG).write_text(text.replace("{", '{"torch_dtype": "float32",', 1))
    with caplog.at_level(logging.WARNING):
        assert load(model).runtime["vocab_size"] == 256
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"{model / CONFIG}: the key 'vocab_size' occurs twice; the last value counts"]


def test_an_eos_token_beyond_the_vocabulary_is_ignored_with_a_warning(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(model, GENERATION, eos_token_id=[7, 300])
    change(model, CONFIG, eos_token_id=8)
    with caplog.at_level(logging.WARNING):
        assert load(model).eos_token_ids == (7, 8)
    assert "eos_token_id 300 is beyond the vocabulary of 256; it is ignored" in caplog.text
