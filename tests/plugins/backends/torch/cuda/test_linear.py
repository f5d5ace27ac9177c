from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="the kernels are written in Triton")

from support.quantized_models import Format, float8, int8

from fllm_backends.torch.cuda.linear import LINEAR_KINDS, Fp8Linear, Int8Linear, load_linear
from fllm_backends.torch.model import Linear, RMSNorm
from fllm_backends.torch.quantized.scaled import ScaledWeight
from fllm_backends.torch.weight_matrix import StackedMatrix

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def linear(outputs: int = 48, inputs: int = 80, dtype: torch.dtype = torch.float32) -> Linear:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(outputs, inputs, generator=generator)
    weight[3] *= 50
    return Linear(weight.to(DEVICE, dtype), torch.randn(outputs, generator=generator).to(DEVICE, dtype))


def rows(count: int, inputs: int = 80, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(2)).to(DEVICE, dtype)


@pytest.mark.parametrize("count", [1, 2, 17, 40, 70])
@pytest.mark.parametrize("kind", ["none", "int8"])
def test_the_product_is_that_of_the_weights_that_are_kept(kind: str, count: int) -> None:
    given = linear()
    product = LINEAR_KINDS[kind](given)
    kept = (
        product.weight.float() * product.scale[:, None] if isinstance(product, Int8Linear) else given.weight
    )
    expected = Linear(kept, given.bias)(rows(count))
    torch.testing.assert_close(product(rows(count)), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("count", [1, 3, 70])
@pytest.mark.parametrize("kind", LINEAR_KINDS)
def test_a_norm_comes_before_and_a_sum_after(kind: str, count: int) -> None:
    product, x = LINEAR_KINDS[kind](linear()), rows(count)
    norm = RMSNorm(1 + 0.1 * rows(1)[0], 1e-5)
    add_to = rows(count, 48)
    expected = add_to + product(norm(x))
    found = product(x, norm=norm, add_to=add_to)
    assert found is add_to
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("count", [1, 17, 64])
def test_few_rows_meet_float8_weights_as_they_are(count: int) -> None:
    given = linear()
    product = Fp8Linear.from_linear(given)
    expected = Linear(product.weight.float() * product.scale[:, None], given.bias)(rows(count))
    torch.testing.assert_close(product(rows(count)), expected, rtol=1e-4, atol=1e-3)


def test_many_rows_become_float8_themselves() -> None:
    given, x = linear(dtype=torch.bfloat16), rows(65, dtype=torch.bfloat16)
    found, expected = Fp8Linear.from_linear(given)(x), given(x)
    assert found.dtype == torch.bfloat16
    assert 0.005 < (found - expected).float().norm() / expected.float().norm() < 0.05


def test_sizes_that_float8_products_cannot_have_still_give_a_product() -> None:
    given, x = linear(50, 72), rows(65, 72)
    assert (Fp8Linear.from_linear(given)(x) - given(x)).norm() / given(x).norm() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_to_int8_misses_by_half_a_step_at_most(dtype: torch.dtype) -> None:
    given = linear(dtype=dtype)
    kept = Int8Linear.from_linear(given)
    assert kept.weight.dtype == torch.int8
    misses = (kept.weight.float() * kept.scale[:, None] - given.weight.float()).abs()
    assert (misses <= 0.501 * kept.scale[:, None]).all()


def test_a_row_of_zeros_stays_zero() -> None:
    for kind in (Int8Linear, Fp8Linear):
        assert not kind.from_linear(Linear(torch.zeros(4, 16, device=DEVICE))).weight.float().any()


@pytest.mark.parametrize(("kind", "form"), [("fp8", float8()), ("fp8", float8(block=(1, 0))), ("int8", int8)])
def test_the_values_of_a_quantized_checkpoint_are_not_rounded_again(kind: str, form: Format) -> None:
    given = linear()
    weights = [form(given.tensor[:32].cpu()), form(given.tensor[32:].cpu())]
    stored = [ScaledWeight({"values": p["weight"], "scale": p["weight_scale"]}, None) for p, _ in weights]
    product = load_linear(Linear(StackedMatrix(tuple(stored)), given.bias), kind, given.tensor)
    assert isinstance(product, Fp8Linear | Int8Linear)
    dense = torch.cat([dense for _, dense in weights])
    assert torch.equal((product.weight.float() * product.scale[:, None]).cpu(), dense)
    x = rows(2)
    torch.testing.assert_close(product(x), Linear(dense.to(DEVICE), given.bias)(x), rtol=1e-4, atol=1e-3)


def test_values_in_blocks_are_rounded_to_the_scales_of_rows() -> None:
    given = linear()
    parts, dense = float8(block=(16, 16))(given.tensor.cpu())
    stored = ScaledWeight({"values": parts["weight"], "scale": parts["weight_scale"]}, (16, 16))
    product = load_linear(Linear(stored), "fp8", given.tensor)
    expected = Fp8Linear.from_linear(Linear(dense.to(DEVICE)))
    assert isinstance(product, Fp8Linear)
    assert torch.equal(product.weight.float(), expected.weight.float())
