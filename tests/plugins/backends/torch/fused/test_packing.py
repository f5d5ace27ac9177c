"""Packed weights are what they were, or the nearest."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from support.packed_weights import unpack

from fllm_backends.torch.fused.packing import GROUP, RECORD_4, RECORD_8, pack
from fllm_backends.torch.weight_matrix import TensorMatrix

KINDS = gguf.GGMLQuantizationType


def weights(seed: int = 0, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=spread, size=(48, 96)).astype(np.float32)


@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e3])
def test_each_weight_is_rounded_by_about_half_a_step_at_most(spread: float) -> None:
    given = weights(spread=spread)
    groups = given.reshape(-1, GROUP)
    steps = (groups.max(-1) - groups.min(-1)) / 255
    missed = np.abs(unpack(pack(TensorMatrix(torch.from_numpy(given)))) - given).reshape(-1, GROUP)
    assert (missed <= steps[:, None] * 0.8).all()  # float16 rounds the grid itself a little


@pytest.mark.parametrize(
    ("kind", "record"),
    [(KINDS.Q4_0, RECORD_4), (KINDS.Q4_1, RECORD_4), (KINDS.Q5_0, RECORD_8), (KINDS.Q8_0, RECORD_8)],
)
def test_weights_that_were_quantized_in_groups_stay_what_they_are(
    kind: gguf.GGMLQuantizationType, record: int
) -> None:
    given = gguf.quants.dequantize(gguf.quants.quantize(weights(1), kind), kind)
    packed = pack(TensorMatrix(torch.from_numpy(given)))
    assert packed.records.shape[-1] == record
    np.testing.assert_allclose(unpack(packed), given, rtol=1e-6, atol=1e-6)


def test_zeros_stay_zero() -> None:
    assert not unpack(pack(TensorMatrix(torch.zeros(16, 32)))).any()


def test_one_group_that_does_not_fit_into_4_bits_makes_the_matrix_one_of_8() -> None:
    given = gguf.quants.dequantize(gguf.quants.quantize(weights(2), KINDS.Q4_1), KINDS.Q4_1)
    given[-1, -GROUP:] = np.linspace(0, 1, GROUP)
    assert pack(TensorMatrix(torch.from_numpy(given))).records.shape[-1] == RECORD_8


def test_a_bias_is_kept() -> None:
    bias = np.arange(48, dtype=np.float64)
    assert pack(TensorMatrix(torch.from_numpy(weights())), bias).bias.tolist() == bias.tolist()
    assert not pack(TensorMatrix(torch.from_numpy(weights()))).bias.any()
