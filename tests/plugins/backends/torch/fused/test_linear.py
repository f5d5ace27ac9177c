"""Linear layers and experts on packed weights, compared with torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.fused.linear import PackedLinear, PackedProduct, expert_jobs
from fllm_backends.torch.fused.matmul import PLANES_8_BIT, PLANES_15_BIT

TOLERANCE = {PLANES_8_BIT: 2e-2, PLANES_15_BIT: 3e-4}
"""Relative error of the rounded activations."""


@pytest.fixture(scope="module", params=[1, 2])
def threads(request: pytest.FixtureRequest) -> KernelThreads:
    return KernelThreads(request.param)


def four_bits(*shape: int) -> Tensor:
    """Return weights that 4 bits hold exactly."""
    values = torch.randint(-8, 8, shape, generator=torch.Generator().manual_seed(0))
    values[..., ::32] = -8  # each group of a row spans the grid
    values[..., 1::32] = 7
    return values / 8


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("planes", TOLERANCE)
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 48), (96, 320), (100, 70), (33, 17)])
@pytest.mark.parametrize("rows", [1, 5, 130])
def test_a_linear_layer(threads: KernelThreads, planes: int, inputs: int, outputs: int, rows: int) -> None:
    torch.manual_seed(1)
    weight, bias = four_bits(outputs, inputs), torch.randn(outputs)
    x = torch.randn(2, rows, inputs)
    packed = PackedLinear(PackedProduct(weight, bias, threads, planes))(x)
    assert packed.shape == (2, rows, outputs)
    assert error(packed, nn.functional.linear(x, weight, bias)) < TOLERANCE[planes]


def test_no_rows(threads: KernelThreads) -> None:
    packed = PackedLinear(PackedProduct(four_bits(64, 64), None, threads))
    assert packed(torch.empty(1, 0, 64)).shape == (1, 0, 64)


@pytest.mark.parametrize("planes", TOLERANCE)
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6, 7])
def test_a_row_has_the_same_result_in_any_batch(threads: KernelThreads, planes: int, rows: int) -> None:
    torch.manual_seed(1)
    packed = PackedLinear(PackedProduct(torch.randn(80, 100), None, threads, planes))
    x = torch.randn(70, 100)
    assert torch.equal(torch.cat([packed(part) for part in x.split(rows)]), packed(x))


@pytest.mark.parametrize("counts", [[3, 0, 70, 1], [0, 0, 0, 2], [0, 0, 0, 0]])
def test_each_row_is_multiplied_with_the_matrix_of_its_expert(
    threads: KernelThreads, counts: list[int]
) -> None:
    torch.manual_seed(1)
    weight, bias = four_bits(len(counts), 40, 96), torch.randn(len(counts), 40)
    x = torch.randn(sum(counts), 96)
    packed = PackedProduct(weight.flatten(0, 1), bias, threads, experts=len(counts))
    actual = packed.multiply_jobs(x, expert_jobs(counts))
    assert actual.shape == (sum(counts), 40)
    for expert, (rows, results) in enumerate(zip(x.split(counts), actual.split(counts), strict=True)):
        expected = nn.functional.linear(rows, weight[expert], bias[expert])
        assert not len(rows) or error(results, expected) < TOLERANCE[PLANES_15_BIT]
