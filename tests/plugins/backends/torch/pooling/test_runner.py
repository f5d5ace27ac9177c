"""Embeddings, scores and classes equal those of Sentence Transformers and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pooling_models import (
    PAIRS,
    TEXTS,
    cross_encoder,
    reference,
    save_pooling_model,
    save_with_modules,
    write_modules,
)

from fllm import BackendConfig, ModelError, PoolingCard, PoolingInput
from fllm.batching import PoolingRow
from fllm.config import Device
from fllm.tokenizer import Tokenizer
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.pooling.runner import TorchPoolingRunner

TOLERANCE = 1e-4


def loaded(directory: Path, **config: Any) -> tuple[TorchPoolingRunner, PoolingCard]:
    torch_config = read_torch_config(BackendConfig(model=str(directory), **config))
    runner = TorchPoolingRunner(torch_config, Device("cpu"), None, None)
    card = runner.load(lambda _: None)
    assert card.pooling is not None
    return runner, card.pooling


def pool(runner: TorchPoolingRunner, inputs: list[PoolingInput], **settings: Any) -> np.ndarray[Any, Any]:
    rows = [PoolingRow(each, **settings) for each in inputs]
    return np.stack([np.frombuffer(each, "<f4") for each in runner.pool(rows)])


def texts_of(directory: Path, texts: list[str] = TEXTS) -> list[PoolingInput]:
    tokenizer = Tokenizer.load(directory)
    return [tokenizer.encode_input(text) for text in texts]


def pairs_of(directory: Path) -> list[PoolingInput]:
    tokenizer = Tokenizer.load(directory)
    return [tokenizer.encode_input(*pair) for pair in PAIRS]


@pytest.mark.parametrize("family", ["Bert", "XLMRoberta", "DistilBert", "MPNet", "ModernBert"])
def test_encoders_pool_as_their_files_say(tmp_path: Path, family: str) -> None:
    save_pooling_model(tmp_path, family)
    write_modules(tmp_path, "Pooling", "Normalize")
    runner, card = loaded(tmp_path)
    assert card == PoolingCard(task="embed", size=32)
    found = pool(runner, texts_of(tmp_path))
    np.testing.assert_allclose(found, reference(tmp_path).encode(TEXTS), atol=TOLERANCE)
    assert np.ptp(found, axis=0).max() > 0.1  # the texts differ


def test_the_encoder_of_t5_has_no_maximum_of_its_own(tmp_path: Path) -> None:
    save_pooling_model(tmp_path, "T5", "EncoderModel")
    write_modules(tmp_path, "Pooling", "Normalize")
    (tmp_path / "sentence_bert_config.json").unlink()
    runner, _ = loaded(tmp_path)
    found = pool(runner, texts_of(tmp_path))
    np.testing.assert_allclose(found, reference(tmp_path).encode(TEXTS), atol=TOLERANCE)


@pytest.mark.parametrize(
    "modes",
    [
        ["cls"],
        ["max"],
        ["mean_sqrt_len_tokens"],
        ["weightedmean"],
        ["lasttoken"],
        ["cls", "mean"],
    ],
)
def test_all_modes_of_pooling(tmp_path: Path, modes: list[str]) -> None:
    save_pooling_model(tmp_path, "Bert")
    write_modules(tmp_path, "Pooling", pooling_mode=modes)
    runner, card = loaded(tmp_path)
    found = pool(runner, texts_of(tmp_path))
    np.testing.assert_allclose(found, reference(tmp_path).encode(TEXTS), atol=TOLERANCE, rtol=1e-5)
    assert card.size == found.shape[1] == 32 * len(modes)


@pytest.mark.parametrize("head", ["Model", "ForCausalLM"])
def test_qwen3_embedding_pools_the_last_token(tmp_path: Path, head: str) -> None:
    """Published with the class Qwen3ForCausalLM and tensors without ``model.``."""
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.sentence_transformer.modules.pooling import Pooling

    save_pooling_model(tmp_path, "Qwen3", head)
    prompts = {"query": "w5 w6 ", "document": ""}
    save_with_modules(tmp_path, Pooling(32, "lasttoken"), Normalize(), prompts=prompts)
    runner, card = loaded(tmp_path)
    np.testing.assert_allclose(
        pool(runner, texts_of(tmp_path)), reference(tmp_path).encode(TEXTS), atol=TOLERANCE
    )
    assert card.prompts == prompts


def test_gemma_embedding_attends_in_both_directions_and_has_dense_layers(tmp_path: Path) -> None:
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.sentence_transformer.modules.pooling import Pooling
    from torch import nn

    save_pooling_model(tmp_path, "Gemma3Text")
    dense = [
        Dense(32, 48, bias=False, activation_function=nn.Identity()),
        Dense(48, 24, bias=True, activation_function=nn.Tanh()),
    ]
    save_with_modules(tmp_path, Pooling(32, "mean"), *dense, Normalize())
    runner, card = loaded(tmp_path)
    found = pool(runner, texts_of(tmp_path))
    np.testing.assert_allclose(found, reference(tmp_path).encode(TEXTS), atol=TOLERANCE)
    assert card.size == 24


@pytest.mark.parametrize(
    ("family", "mode"), [("Bert", "cls"), ("Qwen3", "lasttoken"), ("Gemma3Text", "mean")]
)
def test_without_files_of_sentence_transformers_the_class_decides_and_embeddings_are_normalised(
    tmp_path: Path, family: str, mode: str
) -> None:
    save_pooling_model(tmp_path, family)
    bare, _ = loaded(tmp_path)
    found = pool(bare, texts_of(tmp_path))
    write_modules(tmp_path, "Pooling", "Normalize", pooling_mode=mode)
    np.testing.assert_allclose(found, reference(tmp_path).encode(TEXTS), atol=TOLERANCE)


def test_a_generation_model_is_pooled_by_its_last_token(tmp_path: Path) -> None:
    save_pooling_model(tmp_path, "Qwen3", "ForCausalLM")
    runner, _ = loaded(tmp_path)
    found = pool(runner, texts_of(tmp_path))
    write_modules(tmp_path, "Pooling", "Normalize", pooling_mode="lasttoken")
    np.testing.assert_allclose(found, reference(tmp_path).encode(TEXTS), atol=TOLERANCE)


def test_embeddings_are_cut_and_then_normalised(tmp_path: Path) -> None:
    save_pooling_model(tmp_path, "Bert", matryoshka_dimensions=[8, 16])
    write_modules(tmp_path, "Pooling", "Normalize")
    runner, card = loaded(tmp_path)
    assert card.matryoshka == (8, 16)
    inputs = texts_of(tmp_path)
    expected = reference(tmp_path).encode(TEXTS, truncate_dim=8, normalize_embeddings=True)
    np.testing.assert_allclose(pool(runner, inputs, dimensions=8), expected, atol=TOLERANCE)
    raw = pool(runner, inputs, activation=False)
    assert np.linalg.norm(raw, axis=1).max() > 1.1
    np.testing.assert_allclose(
        raw / np.linalg.norm(raw, axis=1, keepdims=True), pool(runner, inputs), atol=1e-6
    )


@pytest.mark.parametrize("family", ["Bert", "XLMRoberta", "ModernBert", "Qwen3"])
def test_cross_encoders_score_pairs(tmp_path: Path, family: str) -> None:
    save_pooling_model(tmp_path, family, "ForSequenceClassification", num_labels=1)
    runner, card = loaded(tmp_path)
    assert (card.task, card.size, card.labels) == ("classify", 1, ("LABEL_0",))
    found = pool(runner, pairs_of(tmp_path))[:, 0]
    np.testing.assert_allclose(found, cross_encoder(tmp_path).predict(PAIRS), atol=TOLERANCE)
    assert len(set(found.round(4))) == 3


@pytest.mark.parametrize(
    "setting",
    [
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
    ],
)
def test_a_cross_encoder_names_its_activation(tmp_path: Path, setting: dict[str, Any]) -> None:
    save_pooling_model(tmp_path, "Bert", "ForSequenceClassification", num_labels=1, **setting)
    runner, _ = loaded(tmp_path)
    found = pool(runner, pairs_of(tmp_path))[:, 0]
    np.testing.assert_allclose(found, cross_encoder(tmp_path).predict(PAIRS), atol=TOLERANCE)
    assert found.min() < 0 or found.max() > 1


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
@pytest.mark.parametrize("family", ["Bert", "DistilBert", "Qwen3"])
def test_classes_have_probabilities(tmp_path: Path, family: str, problem: str | None) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    labels = {0: "bad", 1: "fair", 2: "good"}
    save_pooling_model(tmp_path, family, "ForSequenceClassification", id2label=labels, problem_type=problem)
    runner, card = loaded(tmp_path)
    assert card.labels == ("bad", "fair", "good")
    inputs = texts_of(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        logits = torch.cat([model(torch.tensor([each.token_ids])).logits for each in inputs])
    expected = logits.softmax(-1) if problem is None else logits.sigmoid()
    np.testing.assert_allclose(pool(runner, inputs), expected.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(pool(runner, inputs, activation=False), logits.numpy(), atol=TOLERANCE)


def test_sharded_weights_and_old_names_of_layer_norms_are_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_pooling_model(tmp_path, "Bert")
    expected = pool(loaded(tmp_path)[0], texts_of(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    renamed = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): each
        for name, each in tensors.items()
    }
    names = sorted(renamed)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: renamed[name] for name in part}, tmp_path / file, {"format": "pt"})
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    np.testing.assert_allclose(pool(loaded(tmp_path)[0], texts_of(tmp_path)), expected, atol=1e-6)


def test_the_length_is_the_shortest_that_the_files_name(tmp_path: Path) -> None:
    save_pooling_model(tmp_path, "XLMRoberta", max_position_embeddings=50)
    runner = TorchPoolingRunner(
        read_torch_config(BackendConfig(model=str(tmp_path))), Device("cpu"), None, None
    )
    assert runner.load(lambda _: None).max_model_len == 49  # positions begin after the padding token
    write_modules(tmp_path, "Pooling")
    assert runner.load(lambda _: None).max_model_len == 32


@pytest.mark.parametrize(("named", "length"), [(40, 40), (10**30, 65), (None, 65), ("x", 65), (0, 65)])
def test_the_tokenizer_may_name_the_length(tmp_path: Path, named: Any, length: int) -> None:
    save_pooling_model(tmp_path, "Bert")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": named}))
    config = read_torch_config(BackendConfig(model=str(tmp_path)))
    assert TorchPoolingRunner(config, Device("cpu"), None, None).load(lambda _: None).max_model_len == length


def test_missing_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_pooling_model(tmp_path, "Bert")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 'encoder.layer.1.output.dense.weight'"):
        loaded(tmp_path)


def test_weights_of_another_shape_are_an_error(tmp_path: Path) -> None:
    save_pooling_model(tmp_path, "Bert")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(ModelError, match=r"can't be loaded"):
        loaded(tmp_path)


def test_an_unknown_model_type_is_an_error_without_its_code(tmp_path: Path) -> None:
    save_pooling_model(tmp_path, "Bert")
    config = {"model_type": "mine", "architectures": ["MineModel"], "auto_map": {"AutoConfig": "mine.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text("raise SystemExit('executed')")
    with pytest.raises(ModelError, match=r"can't be loaded"):
        loaded(tmp_path)
