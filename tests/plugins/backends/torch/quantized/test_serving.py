from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.quantized_models import change_config, float8, gptq, packed, write_pair
from support.tiny_models import save_model

from fllm.batching.runner import Row
from fllm.config import BackendConfig, Device
from fllm.errors import ConfigError, ModelError
from fllm.values import Progress, SamplingParams
from fllm_backends.checkpoints.gguf import metadata
from fllm_backends.checkpoints.gguf.header import TensorInfo
from fllm_backends.checkpoints.quantized.config import QuantizationConfig
from fllm_backends.torch import hardware
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.quantized import serving
from fllm_backends.torch.quantized.serving import (
    PACKED,
    bytes_of_weight,
    describe_blocks,
    served_quantization,
)
from fllm_backends.torch.runner import TorchRunner
from fllm_backends.torch.size_check import count_values, packed_bytes

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
FP8 = QuantizationConfig(method="modelopt", values="float8")
AWQ = QuantizationConfig(method="awq")


def runner_of(directory: Path, **config: Any) -> TorchRunner:
    options = read_torch_config(BackendConfig(model=str(directory), **config))
    return TorchRunner(options, Device("cpu"), 4)


def loaded(directory: Path, **config: Any) -> TorchRunner:
    runner = runner_of(directory, **config)
    runner.load(lambda progress: None)
    runner.allocate(16)
    return runner


def prompt_logprobs(runner: TorchRunner) -> list[Any]:
    row = Row(
        token_ids=list(range(3, 23)), prompt_length=20, start=0, count=20, block_table=[0, 1],
        sampling=SamplingParams(max_tokens=1, prompt_logprobs=3), seed=0, sample=True, prompt_logprobs=True,
    )  # fmt: skip
    [sampled] = runner.execute([row])
    return list(sampled.prompt_logprobs or ())


# Furiosa's own FP8 checkpoints of Llama 3.1 are compressed-tensors with static scales of whole tensors.
FURIOSA = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}}},
    "ignore": ["lm_head"],
    "kv_cache_scheme": {"num_bits": 8, "type": "float"},
}


@pytest.mark.parametrize(
    ("form", "config", "method"),
    [
        (float8(input_scale=torch.tensor(0.02)), FURIOSA, "compressed-tensors"),
        (float8("weight_scale_inv", (32, 32)), None, "fp8"),
        (gptq(symmetric=False, ordered=False), {"quant_method": "gptq", "bits": 4}, "gptq"),
        (packed(), {"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
    ],
)
def test_widened_weights_have_the_log_probabilities_of_the_plain_model(
    form: Any, config: Any, method: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fllm.model")
    quantized, plain = write_pair(tmp_path, form, config)
    runner = runner_of(quantized, quantization="none")
    runtime = runner.load(lambda progress: None).runtime
    runner.allocate(16)
    assert (runtime["quantization"], runtime["checkpoint_quantization"]) == (None, method)
    assert f"the checkpoint is quantized: method={method} served_as=float32" in caplog.messages
    assert ("KV cache are ignored" in caplog.text) == (config is FURIOSA)
    expected = prompt_logprobs(loaded(plain, quantization="none"))
    assert len(expected) > 10
    assert prompt_logprobs(runner) == expected


def test_a_method_that_is_not_the_checkpoint_s_is_refused(tmp_path: Path) -> None:
    save_model("Llama", tmp_path / "plain")
    with pytest.raises(ConfigError, match="--quantization awq: the checkpoint is not quantized; leave"):
        loaded(tmp_path / "plain", quantization="awq")
    with pytest.raises(ConfigError, match="--quantization gptq: the checkpoint is quantized with awq"):
        served_quantization("gptq", AWQ, "auto", CPU)


@pytest.mark.parametrize(
    ("requested", "checkpoint", "served"),
    [("awq", AWQ, None), ("none", AWQ, "none"), ("fp8", FP8, None), ("int8", FP8, "int8"), (None, FP8, None)],
)
def test_a_cpu_serves_a_quantized_checkpoint_as_its_kernels_allow(
    requested: str | None, checkpoint: QuantizationConfig, served: str | None
) -> None:
    assert served_quantization(requested, checkpoint, "auto", CPU) == served


@pytest.mark.parametrize(("checkpoint", "served"), [(FP8, "fp8"), (AWQ, "none")])
def test_cuda_keeps_what_it_has_kernels_for(
    checkpoint: QuantizationConfig, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "check_quantization", lambda *_: None)
    assert served_quantization(None, checkpoint, "auto", CUDA) == served


def test_cuda_widens_what_it_has_no_kernels_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(method: str, *_: object) -> None:
        raise ConfigError("compute capability")

    monkeypatch.setattr(serving, "check_quantization", refuse)
    assert served_quantization(None, FP8, "auto", CUDA) == "none"


def test_a_model_that_can_not_fit_is_refused_before_its_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model("Llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    monkeypatch.setattr(hardware, "free_memory", lambda device: 2**20)
    change_config(tmp_path, hidden_size=1024, intermediate_size=4096, head_dim=64, vocab_size=65536)
    with pytest.raises(ConfigError, match=r"0\.\d\d GiB of weights .* 512 tokens, of 0\.00 GiB free; choose"):
        runner_of(tmp_path, quantization="none", load_format="dummy").load(lambda progress: None)


def test_the_size_of_a_gguf_model_is_that_of_all_parts_as_they_are_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {
        "ffn": ("Q4_0", (1024, 2048)),
        "embedding": ("IQ4_XS", (1024, 2048)),
        "head": ("F16", (64, 32)),
    }
    infos = {
        name: TensorInfo(tmp_path, shape, gguf.GGMLQuantizationType[kind], 0)
        for name, (kind, shape) in tensors.items()
    }
    monkeypatch.setattr(metadata, "Metadata", lambda file: SimpleNamespace(tensors=infos))
    values = 1024 * 2048
    assert packed_bytes(tmp_path) == values * 4.5 / 8 + values * 9 / 8 + 64 * 32 * 9 / 8
    assert count_values(tmp_path) == 2 * values + 64 * 32


def test_a_weight_that_the_model_does_not_have_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_model("Llama", tmp_path, num_hidden_layers=1)
    weights = load_file(tmp_path / "model.safetensors")
    bias = "model.layers.0.self_attn.q_proj.bias"
    buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    save_file(weights | {bias: torch.ones(32), buffer: torch.ones(4)}, tmp_path / "model.safetensors")
    loaded(tmp_path, quantization="none")
    [warning] = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == (
        f"LlamaForCausalLM has no place for 1 weights of the checkpoint, such as {bias}; they are ignored"
    )


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_settings_are_checked_before_the_weights_are_read(file: str, tmp_path: Path) -> None:
    save_model("Llama", tmp_path, num_hidden_layers=1)
    content = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps(content | {"eos_token_id": "x"}))
    steps: list[Progress] = []
    with pytest.raises(ModelError, match="eos_token_id"):
        runner_of(tmp_path, quantization="none").load(steps.append)
    assert not steps


def test_weights_of_four_bits_count_as_such() -> None:
    grids = QuantizationConfig(method="gptq", has_grids=True)
    sizes = [bytes_of_weight(grids, form, "bfloat16") for form in (PACKED, "int8", None)]
    assert sizes == [0.5625, 1, 2]
    assert bytes_of_weight(FP8, PACKED, "float32") == 1.0625


def test_the_allocator_of_a_cpu_is_one_line() -> None:
    with pytest.raises(ModelError, match=r"^no memory$"), hardware.out_of_memory("no memory"):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shape"), hardware.out_of_memory("no memory"):
        torch.empty(3).view(2)


def test_the_log_says_which_matrices_keep_their_bits() -> None:
    assert describe_blocks({"none": 2, "Q4_0": 12}) == "12 kept as Q4_0, 2 rounded to 8 bits"
    assert describe_blocks({"Q8_0": 3}) == "3 kept as Q8_0"
