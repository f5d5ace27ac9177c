"""Packed weights are what they were, or the nearest."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from support.packed_weights import unpack

from fllm_backends.torch.fused.formats import GROUP, INT4, Q4_0, Q4_1, Q4_K, Q5_0, Q6_K, Q8_0, Q8_1, Format
from fllm_backends.torch.fused.gguf_blocks import REPACK
from fllm_backends.torch.fused.packing import PackedMatrix, pack
from fllm_backends.torch.weight_matrix import StackedMatrix, TensorMatrix

KINDS = gguf.GGMLQuantizationType


def weights(seed: int = 0, spread: float = 1.0, columns: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=spread, size=(48, columns)).astype(np.float32)


def formats(packed: PackedMatrix) -> list[Format]:
    return [part.format for part in packed.parts]


@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e3])
def test_each_weight_is_rounded_by_about_half_a_step_at_most(spread: float) -> None:
    given = weights(spread=spread)
    groups = given.reshape(-1, GROUP)
    steps = (groups.max(-1) - groups.min(-1)) / 255
    missed = np.abs(unpack(pack(TensorMatrix(torch.from_numpy(given)))) - given).reshape(-1, GROUP)
    assert (missed <= steps[:, None] * 0.8).all()  # float16 rounds the grid itself a little


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        *((KINDS[form.name], form) for form in (Q4_0, Q4_1, Q5_0, Q8_0)),
        (KINDS.TQ2_0, Q4_0),
        (KINDS.MXFP4, Q5_0),
    ],
)
def test_weights_that_were_quantized_in_groups_stay_what_they_are(
    kind: gguf.GGMLQuantizationType, form: Format
) -> None:
    given = gguf.quants.dequantize(gguf.quants.quantize(weights(1, columns=256), kind), kind)
    packed = pack(TensorMatrix(torch.from_numpy(given)))
    assert formats(packed) == [form]
    np.testing.assert_allclose(unpack(packed), given, rtol=1e-6, atol=1e-6)


def test_zeros_stay_zero() -> None:
    assert not unpack(pack(TensorMatrix(torch.zeros(16, 32)))).any()


def test_a_group_of_equal_weights_that_no_small_scale_gives_is_rounded() -> None:
    given = np.full((16, 32), 0.3, np.float32)
    np.testing.assert_allclose(unpack(pack(TensorMatrix(torch.from_numpy(given)))), given, rtol=6e-4)


def test_one_group_that_does_not_fit_into_4_bits_makes_the_matrix_one_of_8() -> None:
    given = gguf.quants.dequantize(gguf.quants.quantize(weights(2), KINDS.Q4_1), KINDS.Q4_1)
    given[-1, -GROUP:] = np.linspace(0, 1, GROUP)
    assert formats(pack(TensorMatrix(torch.from_numpy(given)))) == [Q8_1]


@pytest.mark.parametrize("columns", [32, 128, 512])
@pytest.mark.parametrize("scale_type", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("form", "bits", "zero"), [(Q4_0, 4, 8), (INT4, 4, None), (Q8_0, 8, 128)])
def test_integers_with_a_scale_for_many_columns_stay_what_they_are(
    columns: int, scale_type: torch.dtype, form: Format, bits: int, zero: int | None
) -> None:
    """As in GPTQ, AWQ and int8 checkpoints."""
    random = torch.Generator().manual_seed(1)
    spread = torch.randn(48, 512, generator=random) * 2 ** (bits - 1) / 4 + 2 ** (bits - 1)
    integers = spread.round().clamp(0, 2**bits - 1).view(48, -1, columns)
    zeros = zero or torch.randint(5, 11, (48, 512 // columns, 1), generator=random)
    scales = (0.001 + 0.01 * torch.rand(48, 512 // columns, 1, generator=random)).to(scale_type).float()
    given = ((integers - zeros) * scales).view(48, 512)
    packed = pack(TensorMatrix(given))
    assert formats(packed) == [form]
    np.testing.assert_allclose(unpack(packed), given.numpy(), rtol=6e-4, atol=1e-9)


def test_a_bias_is_kept() -> None:
    bias = np.arange(48, dtype=np.float64)
    assert pack(TensorMatrix(torch.from_numpy(weights())), bias).bias.tolist() == bias.tolist()
    assert not pack(TensorMatrix(torch.from_numpy(weights()))).bias.any()


class BlockMatrix:
    """Random blocks of a quantization of GGUF, with sane scales."""

    def __init__(self, kind: str, rows: int = 48, columns: int = 512) -> None:
        self.shape = rows, columns
        self.gguf_type = kind
        kind_id = KINDS[kind]
        values, size = gguf.GGML_QUANT_SIZES[kind_id]
        random = np.random.default_rng(len(kind))
        self._blocks = random.integers(0, 256, (rows, columns // values, size), np.uint8)
        scales = random.uniform(0.01, 0.1, (*self._blocks.shape[:2], 2)).astype(np.float16).view(np.uint8)
        at, count = SCALES_AT.get(kind, (0, 1))
        self._blocks[..., at : at + 2 * count] = scales[..., : 2 * count]

    def blocks(self, start: int, stop: int) -> np.ndarray:
        return self._blocks[start:stop].reshape(stop - start, -1)

    def rows(self, start: int, stop: int) -> torch.Tensor:
        values = gguf.quants.dequantize(self.blocks(start, stop), KINDS[self.gguf_type])
        return torch.from_numpy(values)


SCALES_AT = {
    "Q4_1": (0, 2),
    "Q5_1": (0, 2),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q3_K": (108, 1),
    "Q6_K": (208, 1),
}
"""Where the blocks have float16 numbers, and how many; one at the start if not listed."""


@pytest.mark.parametrize("kind", REPACK)
def test_blocks_of_gguf_are_repacked_as_they_are(kind: str) -> None:
    matrix = BlockMatrix(kind)
    packed = pack(matrix)
    assert formats(packed) == [REPACK[kind][0]]
    np.testing.assert_allclose(unpack(packed), matrix.rows(0, 48).numpy(), rtol=1e-5, atol=1e-6)


def test_rows_of_several_quantizations_keep_their_own() -> None:
    parts = BlockMatrix("Q4_K"), BlockMatrix("Q6_K"), BlockMatrix("Q8_0", 16)
    packed = pack(StackedMatrix(parts))
    assert formats(packed) == [Q4_K, Q6_K, Q8_0]
    exact = np.concatenate([part.rows(0, part.shape[0]).numpy() for part in parts])
    np.testing.assert_allclose(unpack(packed), exact, rtol=1e-5, atol=1e-6)
    assert len(packed.bias) == 112


def test_parts_that_share_a_panel_are_packed_as_one() -> None:
    parts = BlockMatrix("Q8_0", 24), BlockMatrix("Q8_0", 8)
    exact = np.concatenate([part.rows(0, part.shape[0]).numpy() for part in parts])
    np.testing.assert_allclose(unpack(pack(StackedMatrix(parts))), exact, rtol=1e-5, atol=1e-6)
