from __future__ import annotations

import pytest
import torch

from fllm.errors import ConfigError
from fllm_backends.torch import hardware
from fllm_backends.torch.hardware import check_quantization

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def pretend(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], *, triton: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(hardware, "find_spec", lambda name: object() if triton else None)


@pytest.mark.parametrize(("method", "dtype"), [(None, "bfloat16"), ("none", "float16"), ("int8", "float32")])
def test_what_a_cpu_can_is_let_through(method: str | None, dtype: str) -> None:
    check_quantization(method, dtype, CPU)


def test_a_cpu_has_no_fp8() -> None:
    with pytest.raises(ConfigError, match=r"fp8 needs a cuda device of compute capability 8\.9.*not a cpu"):
        check_quantization("fp8", "auto", CPU)


def test_int8_on_a_cpu_computes_in_float32() -> None:
    with pytest.raises(ConfigError, match="float32 on a cpu, not in --dtype bfloat16"):
        check_quantization("int8", "bfloat16", CPU)


@pytest.mark.parametrize(("method", "capability"), [("int8", (8, 0)), ("fp8", (8, 9)), ("fp8", (9, 0))])
def test_a_device_that_is_new_enough_has_both(
    method: str, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, capability)
    check_quantization(method, "bfloat16", CUDA)


def test_a_device_without_fp8_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (8, 6))
    with pytest.raises(ConfigError, match=r"compute capability 8\.9 or later; cuda:0 \(a card\) has 8\.6"):
        check_quantization("fp8", "auto", CUDA)


def test_quantization_on_cuda_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (9, 0), triton=False)
    with pytest.raises(ConfigError, match="needs Triton"):
        check_quantization("int8", "auto", CUDA)
