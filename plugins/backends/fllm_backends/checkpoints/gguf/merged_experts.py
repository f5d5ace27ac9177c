"""Merge the experts of a layer into the tensors that transformers has for gpt-oss."""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fllm_backends.checkpoints.gguf.tensors import TensorRows

Floats = NDArray[np.float32]

_NAME = re.compile(r"(.*\.experts\.)\d+\.(\w+\.\w+)")


class MergedExperts(Struct, frozen=True):
    """The matrices of all experts, [experts, inputs, outputs], or their biases, [experts, outputs]."""

    parts: tuple[list[TensorRows], ...]
    """Matrices [outputs, inputs] of the experts. The outputs of several parts alternate."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        outputs, inputs = self.parts[0][0].shape
        if self._are_biases:
            return len(self.parts[0]), len(self.parts) * inputs
        return len(self.parts[0]), inputs, len(self.parts) * outputs

    def read(self, start: int, stop: int) -> Floats:
        """Return some of the experts."""
        parts = [np.stack([self._values(rows) for rows in part[start:stop]]) for part in self.parts]
        return np.stack(parts, axis=-1).reshape(stop - start, *self.shape[1:])

    @property
    def _are_biases(self) -> bool:
        return len(self.parts[0][0].tensor.shape) == 2

    def _values(self, rows: TensorRows) -> Floats:
        values = rows.rows(0, rows.shape[0])
        return values[0] if self._are_biases else values.T


def merge_experts(rows: dict[str, TensorRows]) -> dict[str, MergedExperts]:
    """Move the experts from ``rows`` to tensors of all experts of a layer, by the names of the class."""
    layers: dict[str, dict[str, list[TensorRows]]] = defaultdict(lambda: defaultdict(list))
    for name in [*rows]:
        if match := _NAME.fullmatch(name):
            layers[match[1]][match[2]].append(rows.pop(name))
    merged = {}
    for prefix, experts in layers.items():
        for kind, suffix in (("weight", ""), ("bias", "_bias")):
            merged[f"{prefix}gate_up_proj{suffix}"] = MergedExperts(
                (experts[f"gate_proj.{kind}"], experts[f"up_proj.{kind}"])
            )
            merged[f"{prefix}down_proj{suffix}"] = MergedExperts((experts[f"down_proj.{kind}"],))
    return merged
