"""The device with the embedded model: the contract, its output, and what it rejects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fllm_numpy import plugin
from fllm_numpy.backend import numpy_backend
from fllm_numpy.gguf_file import GgufFile
from fllm_numpy.runner import NumpyRunner

from fllm import BackendConfig, BackendContext, ConfigError, Device, ModelError
from fllm.model import locate
from fllm.testing import ModelRunnerContract, plugins_with
from fllm.tokenizer import Tokenizer

QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


class TestDevice(ModelRunnerContract):
    """The runner's contract, and further tests of the same runner."""

    prompts = (
        [504, 3575, 282, 4649, 314, 7042, 28, 284, 260, 3575, 282],  # The capital of France is Paris...
        [6403, 2231, 253, 655, 28, 665, 436, 253, 1165],  # Once upon a time, there was a little
    )

    block_size = 4  # so that short prompts fill several blocks

    @classmethod
    def runner(cls) -> NumpyRunner:
        return NumpyRunner(Path(locate().location), 2048)

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(Path(self.harness().card.tokenizer))

    def test_the_model_generates_text(self) -> None:
        tokenizer = self.tokenizer()
        sequence = self.harness().sequence(tokenizer.encode(QUESTION, add_special_tokens=False))
        self.harness().generate([sequence], 8)
        assert (
            tokenizer.decode(sequence.output_token_ids, skip_special_tokens=True)
            == "The capital of France is Paris."
        )
        assert sequence.output_token_ids[-1] in self.harness().card.eos_token_ids

    def test_the_tokenizer_spells_any_text_and_divides_digits(self) -> None:
        tokenizer, text = self.tokenizer(), "In 2024, 서울 had 9,386,034 people 😀\n"
        assert (
            tokenizer.decode(tokenizer.encode(text, add_special_tokens=True), skip_special_tokens=False)
            == text
        )
        assert [
            tokenizer.token_text(token) for token in tokenizer.encode("2024", add_special_tokens=False)
        ] == [*"2024"]
        assert tokenizer.eos_token == "<|im_end|>"

    def test_the_runner_can_be_closed(self) -> None:
        directory = Path(self.harness().card.tokenizer)
        super().test_the_runner_can_be_closed()
        assert not directory.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"devices": (Device("numpy", 1),)}, "only one numpy device"),
        ({"dtype": "bfloat16"}, "float32"),
        ({"quantization": "int8"}, "float32"),
        ({"load_format": "dummy"}, "GGUF files"),
        ({"options": {"kv_cache_tokens": "many"}}, "kv_cache_tokens"),
        ({"options": {"cache": "1"}}, "no such option"),
    ],
)
def test_unsupported_settings_are_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        numpy_backend(BackendConfig(**({"model": locate().location} | settings)), BackendContext())


def test_models_that_are_not_gguf_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="directory model"):
        numpy_backend(BackendConfig(model=str(tmp_path)), BackendContext())
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(8))
    with pytest.raises(ModelError, match="can't be read as GGUF"):
        GgufFile(broken)


def test_the_plugin_provides_the_device() -> None:
    [backend] = plugins_with(plugin, installed=False).backends
    assert backend.entry.devices == ("numpy",)  # type: ignore[attr-defined]
