"""Models of transformers whose linear layers and experts are computed on packed weights."""

from __future__ import annotations

import copy

import pytest
import torch
from support.model_families import build
from torch import nn

from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.fused.linear import PackedLinear
from fllm_backends.torch.transformers_lm.packed_modules import pack_modules, packable

IDS = torch.tensor([[(7 * i * i + 3 * i + 11) % 140 + 12 for i in range(40)]])
SIMILARITY = 0.998
"""Cosine of the logits of most positions: since weights are rounded, a router may choose others."""


@pytest.mark.parametrize(
    "name",
    ["gemma3n", "mixtral", "qwen3-moe", "gpt-oss", "gpt2", "deepseek-v3", "granite", "llama4", "cohere"],
)
def test_logits_are_nearly_the_same(name: str) -> None:
    model = build(name)
    with torch.inference_mode():
        expected = model(input_ids=IDS, use_cache=False).logits
        packed = copy.deepcopy(model)
        pack_modules(packable(packed), KernelThreads(2), lambda: None)
        actual = packed(input_ids=IDS, use_cache=False).logits
    assert torch.cosine_similarity(expected[0], actual[0]).median() > SIMILARITY
    assert any(isinstance(module, PackedLinear) for module in packed.modules())
    linears = [m for m in packed.modules() if isinstance(m, nn.Linear) and min(m.weight.shape) >= 64]
    assert not linears


@pytest.mark.parametrize(
    ("name", "experts"),
    [
        ("llama4", "num_local_experts"),
        ("phimoe", "num_local_experts"),
        ("gemma4 with experts", "num_experts"),
        ("hunyuan-moe", "num_experts"),
    ],
)
def test_routers_of_many_experts_stay_as_they_are(name: str, experts: str) -> None:
    model = build(name, **{experts: 72})
    routers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 72]
    assert routers
    pack_modules(packable(model), KernelThreads(1), lambda: None)
    with torch.inference_mode():
        model(input_ids=IDS[:, :8], use_cache=False)
    assert set(routers) <= set(model.modules())


@pytest.mark.parametrize(
    ("name", "changes"),
    [("mamba", {"time_step_rank": 64}), ("mamba2", {}), ("jamba", {"mamba_dt_rank": 64})],
)
def test_classes_that_read_the_weights_of_a_layer_themselves_still_can(
    name: str, changes: dict[str, int]
) -> None:
    model = build(name, **changes)
    ids = IDS[:, :8]
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        pack_modules(packable(model), KernelThreads(1), lambda: None)
        actual = model(input_ids=ids).logits
    assert isinstance(model.lm_head, PackedLinear)
    assert torch.cosine_similarity(expected[0], actual[0]).median() > 0.99
