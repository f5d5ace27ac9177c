"""The inner loops in the instructions of every kind of processor that this one can be."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.packed_weights import unpack

from fllm_backends.torch.fused import dot_products, simd_kernels
from fllm_backends.torch.fused.formats import FORMATS, GROUP, PANEL, Format, Scales
from fllm_backends.torch.fused.intrinsics import address
from fllm_backends.torch.fused.packing import PackedMatrix, PackedPart, QuantizedRows, pack, write_panels
from fllm_backends.torch.fused.simd_builder import simd_function
from fllm_backends.torch.fused.simd_kernels import Activation
from fllm_backends.torch.fused.target import Target, targets
from fllm_backends.torch.weight_matrix import TensorMatrix

ROWS, DEEP = 8, 96
on_every_target = pytest.mark.parametrize("target", targets(), ids=str)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def called(tile: Any, count: int) -> Callable[..., None]:
    """The intrinsic as a function of arrays and numbers; arrays are passed by address."""
    names = [f"a{i}" for i in range(count)]
    space: dict[str, Any] = {"tile": tile}
    exec(f"def call({', '.join(names)}): tile(({', '.join(names)},))", space)  # noqa: S102
    compiled = numba.njit(space["call"])

    def call(*arguments: Any) -> None:
        compiled(*(_address(x) if isinstance(x, np.ndarray) else x for x in arguments))

    return call


@numba.njit
def _address(array: Any) -> Any:
    return address(array)


def rounded(
    target: Target, x: np.ndarray, planes: int = 1, outlier: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """[rows, planes, groups, GROUP] bytes, and the scales of each group."""
    groups = x.shape[1] // GROUP
    whole = np.empty((len(x), planes, groups, GROUP), np.int8)
    scales = np.empty((len(x), groups, simd_kernels.SCALES), np.float32)
    quantize = called(simd_kernels.quantize_groups(target, planes, outlier), 4)
    for row in range(len(x)):
        quantize(x[row], groups, whole[row], scales[row])
    return whole, scales


def seen(whole: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The activations after rounding."""
    if whole.shape[1] == 1:
        numbers = whole[:, 0].astype(np.float64)
    else:
        numbers = whole[:, 0] + whole[:, 1] / 2.0**dot_products.PLANE_BITS
    return (numbers * scales[..., :1]).reshape(len(whole), -1)


@on_every_target
@pytest.mark.parametrize("planes", [1, 2])
def test_rounding_notes_what_one_is_worth_and_the_sum(target: Target, planes: int) -> None:
    x = numbers(4, DEEP)
    x[1, :GROUP] = 0
    whole, scales = rounded(target, x, planes)
    back = seen(whole, scales)
    largest = np.abs(x.reshape(4, -1, GROUP)).max(-1)
    np.testing.assert_allclose(scales[..., 0], largest / 127, rtol=1e-6)
    steps = scales[..., :1] / (1 if planes == 1 else 2**dot_products.PLANE_BITS)
    assert (np.abs(back - x).reshape(4, -1, GROUP) <= steps * 0.51).all()
    halves = back.reshape(4, -1, 2, GROUP // 2).sum(-1)
    np.testing.assert_allclose(scales[..., 1], halves.sum(-1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scales[..., 2:], halves, rtol=1e-5, atol=1e-5)


@on_every_target
def test_only_groups_with_outliers_have_a_second_plane(target: Target) -> None:
    x = numbers(1, 8 * GROUP)
    x[0, 3 * GROUP] = 40
    whole, scales = rounded(target, x, 2, outlier=4)
    marked = scales[0, :, 0].view(np.uint32) & 1
    assert marked.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert whole[0, 1].any(-1).tolist() == [mark == 1 for mark in marked]
    steps = scales[0, :, :1] / np.where(marked, 2**dot_products.PLANE_BITS, 1)[:, None]
    assert (np.abs(seen(whole, scales) - x).reshape(-1, GROUP) <= steps * 0.51).all()


@on_every_target
def test_a_row_without_a_second_plane_has_the_same_product_beside_one_with_it(target: Target) -> None:
    x = numbers(2, 4 * GROUP)
    x[1, GROUP] = 60
    whole, scales = zip(*(rounded(target, row[None], 2, outlier=4) for row in x), strict=True)
    packed = PackedMatrix((random_part(FORMATS[0], PANEL, 4 * GROUP),), numbers(PANEL))
    alone, both = np.empty((1, PANEL), np.float32), np.empty((2, PANEL), np.float32)
    multiply(target, whole[0], scales[0], packed, alone)
    multiply(target, np.concatenate(whole), np.concatenate(scales), packed, both)
    assert both[0].tobytes() == alone[0].tobytes()


def random_part(form: Format, rows: int, columns: int, seed: int = 1) -> PackedPart:
    """Random values with random scales."""
    random = np.random.default_rng(seed)
    blocks = columns // GROUP // form.groups

    def halves(numbers: int) -> np.ndarray:
        return random.uniform(0.5, 1.0, (rows, blocks, numbers)).astype(np.float16)

    def whole(low: int, high: int, numbers: int, dtype: type[np.generic]) -> np.ndarray:
        return random.integers(low, high, (rows, blocks, numbers)).astype(dtype)

    scales = {
        Scales.GROUP: lambda: [halves(1), -halves(1)][: 1 + form.minima],
        Scales.ZEROS: lambda: [halves(1), whole(0, 16, 1, np.uint8)],
        Scales.NESTED: lambda: [whole(0, 256, 8, np.uint8), whole(-(2**31), 2**31, 1, np.int32), halves(2)],
        Scales.HALVES: lambda: [whole(-128, 128, 16, np.int8), halves(1)],
    }
    values = random.integers(0, 2**form.bits, (rows, columns)).astype(np.uint8)
    panels = np.empty((rows // PANEL, blocks, form.block_bytes), np.uint8)
    write_panels(form, QuantizedRows(values, scales[form.scales]()), panels)
    return PackedPart(form, panels)


@on_every_target
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("planes", [1, 2])
def test_products(target: Target, form: Format, planes: int) -> None:
    shapes = (1, 0), (8, 1), (4, 0), (3, 1), (2, 0)
    rows, add = shapes[(FORMATS.index(form) + planes + target.width) % len(shapes)]
    columns = 3 * GROUP * form.groups
    part = random_part(form, PANEL, columns)
    packed = PackedMatrix((part,), numbers(PANEL, seed=3))
    x, out = numbers(rows, columns, seed=4) * 100, numbers(rows, PANEL, seed=5)
    whole, scales = rounded(target, x, planes)
    exact = unpack(packed).astype(np.float64)
    expected = seen(whole, scales) @ exact.T + packed.bias + (out if add else 0)
    multiply(target, whole, scales, packed, out, add)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=2e-6 * np.abs(exact).sum(-1).max() * 100)


def multiply(
    target: Target,
    whole: np.ndarray,
    scales: np.ndarray,
    packed: PackedMatrix,
    out: np.ndarray,
    add: int = 0,
) -> None:
    rows, planes, groups = whole.shape[:3]
    (part,) = packed.parts
    tile = simd_function(target.width)(simd_kernels.panel_matmul(target, rows, part.format, planes))
    line = groups * planes * GROUP
    called(tile, 10)(
        whole,
        line,
        scales,
        groups * simd_kernels.SCALE_BYTES,
        part.panels,
        groups,
        packed.bias,
        out,
        PANEL * 4,
        add,
    )


@on_every_target
@pytest.mark.parametrize("planes", [1, 2])
def test_extreme_bytes_do_not_overflow(target: Target, planes: int) -> None:
    weights = np.where(np.arange(DEEP) % 32, 1.0, -1.0).astype(np.float32) * np.ones((PANEL, 1), np.float32)
    weights[:, 5] = 0.3  # so that 4 bits are not enough
    packed, out = pack(TensorMatrix(torch.from_numpy(weights))), np.empty((1, PANEL), np.float32)
    multiply(target, *rounded(target, np.ones((1, DEEP), np.float32), planes), packed, out)
    np.testing.assert_allclose(out[0], unpack(packed).sum(-1), rtol=1e-4)


ACTIVATIONS = {
    Activation.SILU: F.silu,
    Activation.GELU: F.gelu,
    Activation.GELU_TANH: functools.partial(F.gelu, approximate="tanh"),
}


@on_every_target
@pytest.mark.parametrize("activation", Activation)
def test_gates(target: Target, activation: Activation) -> None:
    gates, ups = numbers(GROUP) * 30, numbers(GROUP, seed=1)
    gates[::3] /= 30
    whole, scales = np.empty(GROUP, np.int8), np.empty(simd_kernels.SCALES, np.float32)
    called(simd_kernels.activate_and_mul(target, activation), 4)(gates, ups, whole, scales)
    expected = ACTIVATIONS[activation](torch.from_numpy(gates).double()).numpy() * ups
    assert (np.abs(whole * scales[0] - expected) <= scales[0] * 0.501).all()
