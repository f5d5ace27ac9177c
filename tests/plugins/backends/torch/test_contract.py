"""The torch backend and its runner keep the contracts, on torch's own operations and on the fused kernels."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from support.tiny_models import save_model

from fllm import Backend, BackendConfig, BackendContext, Device
from fllm.plugins.loader import load_plugins
from fllm.testing import BackendContract, ModelRunnerContract, echo_model
from fllm_backends.torch.backend import torch_backend
from fllm_backends.torch.fused.target import targets
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner

SIZES = {
    "vocab_size": 256,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 96,
}
FUSED = pytest.mark.skipif(not targets(), reason="the kernels need AVX2 or NEON")


class OfTinyModel:
    """A model that writes bytes, and some of its prompts."""

    prompts = ((3, 1, 4, 1, 5), (9, 2, 6), (5, 3, 5, 8, 9, 7, 9))
    quantization: ClassVar[str] = "none"
    directory: ClassVar[Path]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _model(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.directory = tmp_path_factory.mktemp("tiny")
        save_model("Llama", echo_model(cls.directory), **SIZES)

    @classmethod
    def config(cls) -> BackendConfig:
        return BackendConfig(
            model=str(cls.directory), quantization=cls.quantization, grammar="llguidance", max_model_len=128
        )


class TestBackend(OfTinyModel, BackendContract):
    @classmethod
    def backend(cls) -> Backend:
        return torch_backend(cls.config(), BackendContext(load_grammar=load_plugins().grammars.load))


class TestRunner(OfTinyModel, ModelRunnerContract):
    @classmethod
    def runner(cls) -> TorchRunner:
        return TorchRunner(read_torch_config(cls.config()), Device("cpu"), 8)


@FUSED
class TestFusedBackend(TestBackend):
    quantization = "int8"


@FUSED
class TestFusedRunner(TestRunner):
    quantization = "int8"
