"""What a CUDA device serves without quantization, because the kernels lack a feature of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import model_families

from fllm.errors import ConfigError
from fllm_backends.checkpoints.architecture import read_architecture
from fllm_backends.torch.cuda.factory import cuda_quantization


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
