"""A model that two processes divide keeps the contract of runners, on the fused kernels."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from support.tiny_models import save_model

from fllm import BackendConfig, Device
from fllm.testing import ModelRunnerContract, echo_model
from fllm_backends.torch.fused.target import targets
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.sharded.runner import ShardedRunner

SIZES = {
    "vocab_size": 256,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
}
CPU = Device("cpu")


@pytest.mark.skipif(not targets(), reason="the kernels need AVX2 or NEON")
class TestDividedRunner(ModelRunnerContract):
    prompts = ((3, 1, 4, 1, 5), (9, 2, 6), (5, 3, 5, 8, 9, 7, 9))
    directory: ClassVar[Path]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _model(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.directory = tmp_path_factory.mktemp("tiny")
        save_model("Llama", echo_model(cls.directory), **SIZES)

    @classmethod
    def runner(cls) -> ShardedRunner:
        config = BackendConfig(model=str(cls.directory), tensor_parallel_size=2, max_model_len=128)
        return ShardedRunner(read_torch_config(config), (CPU, CPU), 8)
