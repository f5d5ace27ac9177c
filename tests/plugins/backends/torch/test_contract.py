"""The torch backend keeps the contract of backends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tiny_models import save_model

from fllm import Backend, BackendConfig, BackendContext
from fllm.testing import BackendContract
from fllm_backends.torch.backend import torch_backend

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 96}


class TestBackend(BackendContract):
    prompts = ((3, 1, 4, 1, 5), (9, 2, 6), (5, 3, 5, 8, 9, 7, 9))
    quantization: ClassVar[str] = "none"
    directory: ClassVar[Path]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _model(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        cls.directory = tmp_path_factory.mktemp("tiny")
        save_model("Llama", cls.directory, **SIZES)
        yield

    @classmethod
    def backend(cls) -> Backend:
        config = BackendConfig(model=str(cls.directory), quantization=cls.quantization)
        return torch_backend(config, BackendContext())


@pytest.mark.skipif(not torch.cpu._is_avx2_supported(), reason="the kernels need AVX2")
class TestFusedBackend(TestBackend):
    quantization = "int8"
