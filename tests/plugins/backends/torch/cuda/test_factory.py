"""How a model is quantized on a CUDA device: if the kernels support it, and by default as its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import model_families
from support.quantized_models import change_config

from fllm.config import BackendConfig, Device
from fllm.errors import ConfigError
from fllm.testing import echo_model
from fllm_backends.checkpoints.architecture import read_architecture
from fllm_backends.torch import hardware, size_check
from fllm_backends.torch.cuda.factory import cuda_quantization
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner


def test_a_model_with_features_that_the_kernels_lack_is_not_quantized(tmp_path: Path) -> None:
    model_families.build("granite").config.save_pretrained(tmp_path)
    granite = read_architecture(tmp_path)
    assert cuda_quantization(granite, None, "fp8") is None
    assert cuda_quantization(granite, None, None) is None
    with pytest.raises(ConfigError, match=r"kernels lack what GraniteForCausalLM needs \(attention scale, "):
        cuda_quantization(granite, "int8", "int8")


def test_a_llama_is_quantized(tmp_path: Path) -> None:
    model_families.build("llama").config.save_pretrained(tmp_path)
    assert cuda_quantization(read_architecture(tmp_path), "int8", "int8") == "int8"


FLOAT8 = {"quant_method": "fbgemm_fp8"}


@pytest.mark.parametrize(
    ("checkpoint", "options", "served"),
    [
        (None, {}, None),
        (None, {"quantization": "int8"}, "int8"),
        (FLOAT8, {}, "fp8"),
        (FLOAT8, {"quantization": "none"}, "none"),
        (FLOAT8, {"enable_lora": True}, None),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, {}, "none"),
    ],
)
def test_a_class_of_transformers_is_quantized_as_a_llama_is(
    checkpoint: dict[str, Any] | None,
    options: dict[str, Any],
    served: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model_families.build("stablelm").config.save_pretrained(echo_model(tmp_path))
    if checkpoint:
        change_config(tmp_path, quantization_config=checkpoint)
    monkeypatch.setattr(hardware, "supports_triton", lambda device: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    sizes: list[int] = []
    monkeypatch.setattr(size_check, "check_fits", lambda weights, *_: sizes.append(weights))
    config = read_torch_config(BackendConfig(model=str(tmp_path), **options))
    checked = TorchRunner(config, Device("cuda"), 1)
    described = checked._check(tmp_path, torch.device("cuda"))
    assert described.name == "StableLmForCausalLM"
    assert checked._config.quantization == served
    linear = checked._class_size.linear if checked._class_size else 0
    others = checked._class_size.others if checked._class_size else 0
    assert sizes == [linear * (1 if served in ("int8", "fp8") else 2) + others * 2]
