from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fllm.config import BackendConfig, Device
from fllm.errors import ConfigError, ModelError
from fllm.interfaces import BackendContext
from fllm_backends.torch.backend import torch_backend
from fllm_backends.torch.options import read_torch_config

LLAMA = """{
    "architectures": ["LlamaForCausalLM"], "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 1, "rms_norm_eps": 1e-5, "max_position_embeddings": 8
}"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


def test_nothing_said_is_everything_by_default(model: str) -> None:
    options = read_torch_config(BackendConfig(model=model))
    assert (options.device, options.dtype, options.dummy, options.seed) == (None, "auto", False, 0)
    assert (options.kv_cache_memory, options.threads, options.source.kind) == (None, None, "directory")


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ("2GiB", 2 * 1024**3),
        ("500MB", 500_000_000),
        ("1.5g", 1_500_000_000),
        ("64 KiB", 65536),
        ("4096", 4096),
    ],
)
def test_sizes_are_read_with_their_units(said: str, size: int, model: str) -> None:
    options = read_torch_config(BackendConfig(model=model, options={"kv_cache_memory": said, "threads": "3"}))
    assert (options.kv_cache_memory, options.threads) == (size, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int4"}, "--dtype 'int4'.* auto, float32, bfloat16, float16"),
        (
            {"quantization": "hqq"},
            "--quantization 'hqq': the torch backend serves none, int8, fp8",
        ),
        (
            {"devices": (Device("cuda", 0),), "tensor_parallel_size": 2},
            "--tensor-parallel-size 2 needs as many --devices, not 1",
        ),
        (
            {"devices": (Device("cuda", 0), Device("cuda", 1)), "tensor_parallel_size": 1},
            "--tensor-parallel-size 1 needs as many --devices, not 2",
        ),
        ({"tensor_parallel_size": 2, "enable_lora": True}, "--enable-lora.* --tensor-parallel-size"),
        ({"devices": (Device("npu", 0),)}, "supports cuda, cpu"),
        ({"options": {"thread": "2"}}, "thread: there is no such option.*kv_cache_memory.*threads"),
        ({"options": {"threads": "0"}}, "threads='0'"),
        ({"options": {"threads": "many"}}, "threads='many'"),
        ({"options": {"kv_cache_memory": "2GB!"}}, "kv_cache_memory='2GB!'"),
        ({"options": {"kv_cache_memory": "2i"}}, "kv_cache_memory='2i'"),
        ({"load_format": "gguf"}, "--load-format 'gguf'.* is a directory model"),
    ],
)
def test_what_can_not_be_obeyed_is_refused_before_anything_loads(
    changes: dict[str, Any], message: str, model: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        torch_backend(BackendConfig(model=model, **changes), BackendContext())


def test_a_gguf_file_is_no_safetensors(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    config = BackendConfig(model=str(tmp_path / "a.gguf"), load_format="safetensors")
    with pytest.raises(ConfigError, match="is a gguf model"):
        read_torch_config(config)


def test_a_missing_model_is_refused_as_early() -> None:
    with pytest.raises(ModelError, match=r"'\./nowhere' does not exist"):
        torch_backend(BackendConfig(model="./nowhere"), BackendContext())


def test_naming_and_checking_import_no_torch(model: str) -> None:
    Path(model, "config.json").write_text(LLAMA)
    Path(model, "tokenizer.json").write_text('{"model": {}}')
    code = f"""
import sys
import fllm_backends.plugin, fllm_backends.torch.backend as backend
from fllm import BackendConfig, BackendContext, Device
config = BackendConfig(model={model!r}, devices=(Device("cpu"),), load_format="dummy")
backend.torch_backend(config, BackendContext())
print({{"torch", "transformers", "numpy", "safetensors", "tokenizers", "gguf"}} & set(sys.modules))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "set()\n"
