"""The cosines and sines of all positions, computed once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fllm_backends.checkpoints.rope_config import Rope
from fllm_backends.torch import rotary
from fllm_backends.torch.attention import AttentionBatch
from fllm_backends.torch.fused.arrays import Integers
from fllm_backends.torch.fused.packing import Floats

FIRST_POSITIONS = 1024
"""Number of positions of the first tables. They double when a sequence is longer."""


class RotaryTables:
    """Cosines and sines of some ropes, at all positions so far: a step only looks them up."""

    def __init__(self, ropes: Sequence[Rope], rotary_dim: int) -> None:
        self._switch_length = next((rope.switch_length for rope in ropes if rope.switch_length), None)
        self._frequencies = [
            np.stack(
                [
                    rotary.frequencies(rope, rotary_dim, long=long and rope.switch_length is not None).numpy()
                    for rope in ropes
                ]
            )[:, None]
            for long in ((False,) if self._switch_length is None else (False, True))
        ]
        """Those of short sequences, then those of long ones if they differ: [ropes, 1, rotary_dim / 2]."""
        self._amplitudes = np.array([rotary.amplitude(rope) for rope in ropes], np.float32)[:, None, None]
        self._tables: list[tuple[Floats, Floats]] = []
        """Cosines and sines for each of the frequencies: [ropes, positions, rotary_dim / 2]."""
        self._length = 0

    def rotations(self, positions: Integers, batch: AttentionBatch) -> tuple[Floats, Floats]:
        """Return the cosines and sines of the new tokens of a batch: [ropes, tokens, rotary_dim / 2]."""
        if (length := int(positions.max()) + 1) > self._length:
            self._extend(max(2 * length, FIRST_POSITIONS))
        cosine, sine = (table.take(positions, axis=1) for table in self._tables[0])
        if self._switch_length is not None:
            is_long = batch.sequence_lengths.numpy()[:, None] > self._switch_length
            long_cosine, long_sine = (table.take(positions, axis=1) for table in self._tables[1])
            cosine, sine = np.where(is_long, long_cosine, cosine), np.where(is_long, long_sine, sine)
        return cosine, sine

    def _extend(self, length: int) -> None:
        positions = np.arange(length).astype(np.float32)[:, None]
        angles = [positions * frequencies for frequencies in self._frequencies]
        self._tables = [(np.cos(each) * self._amplitudes, np.sin(each) * self._amplitudes) for each in angles]
        self._length = length
