"""The torch backend pools what its files or ``--runner`` say, and refuses options without effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.pooling_models import save_pooling_model, write_modules

from fllm import BackendConfig, BackendContext, ConfigError, ModelError
from fllm.batching import BatchedBackend, BatchedPoolingBackend
from fllm.config import Speculation
from fllm.model import locate
from fllm_backends.torch.backend import torch_backend


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pooling_model(tmp_path_factory.mktemp("qwen3"), "Qwen3", "ForCausalLM")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = save_pooling_model(tmp_path_factory.mktemp("bert"), "Bert")
    write_modules(directory, "Pooling")
    return directory


def backend(model: Path | str, **config: Any) -> object:
    return torch_backend(BackendConfig(model=str(model), **config), BackendContext())


def test_a_generation_model_generates_unless_it_is_to_pool(qwen3: Path) -> None:
    assert isinstance(backend(qwen3), BatchedBackend)
    assert isinstance(backend(qwen3, runner="pooling"), BatchedPoolingBackend)


def test_an_encoder_pools_and_can_not_generate(bert: Path) -> None:
    assert isinstance(backend(bert), BatchedPoolingBackend)
    with pytest.raises(ModelError):
        backend(bert, runner="generate")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quantization": "int8"}, "--quantization int8"),
        ({"model_impl": "native"}, "--model-impl native"),
        ({"enable_lora": True}, "--enable-lora"),
        (
            {"speculative_config": Speculation(method="ngram", num_speculative_tokens=2)},
            "--speculative-config",
        ),
        ({"options": {"kv_cache_memory": "1GiB"}}, "--backend-option kv_cache_memory"),
    ],
)
def test_an_option_without_effect_is_refused(bert: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"{message}: a model that pools does not support it"):
        backend(bert, **config)


def test_a_gguf_file_can_not_be_pooled() -> None:
    with pytest.raises(ConfigError, match="GGUF"):
        backend(locate().location, runner="pooling")


def test_pickled_weights_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    save_pooling_model(tmp_path, "Bert")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        backend(tmp_path)
