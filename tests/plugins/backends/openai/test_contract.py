"""The openai backend fulfils the contract of backends, with our own server as its upstream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from support.http_server import serving
from support.tiny_models import save_model, write_gguf

from fllm import Backend, BackendConfig, BackendContext
from fllm.testing import BackendContract
from fllm_backends.openai.backend import openai_backend


class TestBackend(BackendContract):
    prompts = ((3, 1, 4, 1, 5), (9, 2, 6), (5, 3, 5, 8, 9, 7, 9))
    model: ClassVar[Path]
    url: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _upstream(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        directory = tmp_path_factory.mktemp("tiny")
        sizes = {
            "hidden_size": 64,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 96,
        }
        cls.model = write_gguf(directory / "tiny.gguf", save_model("Llama", directory, **sizes))
        with serving(str(cls.model), "--quantization", "none", FLLM_CACHE=str(directory / "cache")) as server:
            cls.url = server.api
            yield
            cls.teardown_class()

    @classmethod
    def backend(cls) -> Backend:
        config = BackendConfig(model=str(cls.model), options={"url": cls.url})
        return openai_backend(config, BackendContext())
