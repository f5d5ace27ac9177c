"""Classes of transformers keep the contracts of backends and runners, with and without recurrent layers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from support.model_families import save

from fllm import Backend, BackendConfig, BackendContext, Device
from fllm.plugins.loader import load_plugins
from fllm.testing import BackendContract, ModelRunnerContract, echo_model
from fllm_backends.torch.backend import torch_backend
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner


class OfFamily:
    """A family that writes bytes, and some of its prompts."""

    prompts = ((3, 1, 4, 1, 5), (9, 2, 6), (5, 3, 5, 8, 9, 7, 9))
    family: ClassVar[str] = "gpt-oss"
    directory: ClassVar[Path]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _model(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.directory = tmp_path_factory.mktemp("family")
        save(cls.family, echo_model(cls.directory), vocab_size=256)

    @classmethod
    def config(cls) -> BackendConfig:
        return BackendConfig(
            model=str(cls.directory),
            model_impl="transformers",
            grammar="llguidance",
            quantization="none",
            max_model_len=128,
            options={"threads": "1"},
        )


class TestBackend(OfFamily, BackendContract):
    @classmethod
    def backend(cls) -> Backend:
        return torch_backend(cls.config(), BackendContext(load_grammar=load_plugins().grammars.load))


class TestRunner(OfFamily, ModelRunnerContract):
    @classmethod
    def runner(cls) -> TorchRunner:
        return TorchRunner(read_torch_config(cls.config()), Device("cpu"), 8)


class TestRecurrentBackend(TestBackend):
    family = "qwen3-next"
