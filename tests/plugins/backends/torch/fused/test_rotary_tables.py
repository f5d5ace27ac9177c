"""Rotations that are looked up are those that each token has alone, to the bit."""

from __future__ import annotations

import numpy as np
import torch

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.checkpoints.rope_config import Rope
from fllm_backends.torch import rotary
from fllm_backends.torch.attention import AttentionBatch
from fllm_backends.torch.fused.arrays import Integers
from fllm_backends.torch.fused.packing import Floats
from fllm_backends.torch.fused.rotary_tables import FIRST_POSITIONS, RotaryTables

DIM = 16
PLAIN = Rope(rope_theta=500.0)
LONG = Rope(
    rope_type="longrope",
    factor=8.0,
    original_max_position_embeddings=64,
    short_factor=(1.0,) * (DIM // 2),
    long_factor=tuple(1.0 + i for i in range(DIM // 2)),
)


def batch(positions: Integers, length: int) -> AttentionBatch:
    rows = [
        Row(
            token_ids=[0] * length,
            prompt_length=1,
            start=int(position),
            count=1,
            block_table=[0],
            sampling=SamplingParams(max_tokens=1),
            seed=0,
            sample=True,
        )
        for position in positions
    ]
    return AttentionBatch(rows, 16, torch.device("cpu"))


def expected(rope: Rope, position: int, *, long: bool = False) -> tuple[Floats, Floats]:
    angles = np.float32(position) * rotary.frequencies(rope, DIM, long=long).numpy()
    scale = np.float32(rotary.amplitude(rope))
    return np.cos(angles) * scale, np.sin(angles) * scale


def check(ropes: list[Rope], tables: RotaryTables, positions: list[int], length: int, *, long: bool) -> None:
    at = np.array(positions)
    cosine, sine = tables.rotations(at, batch(at, length))
    assert cosine.shape == sine.shape == (len(ropes), len(positions), DIM // 2)
    for index, rope in enumerate(ropes):
        for token, position in enumerate(positions):
            is_long = long and rope is LONG
            found = cosine[index, token], sine[index, token]
            for mine, right in zip(found, expected(rope, position, long=is_long), strict=True):
                assert mine.tobytes() == right.tobytes()


def test_positions_of_several_ropes_also_beyond_the_first_table() -> None:
    ropes = [PLAIN, Rope(rope_theta=1e6)]
    tables = RotaryTables(ropes, DIM)
    for positions in ([0, 5, 1], [FIRST_POSITIONS - 1], [3, FIRST_POSITIONS, 2], [5 * FIRST_POSITIONS, 0]):
        check(ropes, tables, positions, 6 * FIRST_POSITIONS, long=False)


def test_only_long_sequences_have_the_frequencies_of_long_ones() -> None:
    ropes = [PLAIN, LONG]
    tables = RotaryTables(ropes, DIM)
    check(ropes, tables, [0, 31, 63], 64, long=False)
    check(ropes, tables, [0, 31, 63], 65, long=True)
