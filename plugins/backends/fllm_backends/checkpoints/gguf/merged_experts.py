"""Merge the experts of a layer into the tensors that transformers has for gpt-oss."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fllm_backends.checkpoints.gguf.tensors import TensorRows

Floats = NDArray[np.float32]
_Experts = dict[str, list[TensorRows]]

_NAME = re.compile(r"(.*\.experts\.)\d+\.(\w+\.\w+)")


def merge_experts(rows: dict[str, TensorRows]) -> dict[str, Callable[[], Floats]]:
    """Move the experts from ``rows`` to functions that read all of a layer, by the names of the class."""
    layers: dict[str, _Experts] = defaultdict(lambda: defaultdict(list))
    for name in [*rows]:
        if match := _NAME.fullmatch(name):
            layers[match[1]][match[2]].append(rows.pop(name))
    merged: dict[str, Callable[[], Floats]] = {}
    for prefix, experts in layers.items():
        merged |= {
            f"{prefix}gate_up_proj": partial(_gate_up, experts, "weight"),
            f"{prefix}gate_up_proj_bias": partial(_gate_up, experts, "bias"),
            f"{prefix}down_proj": partial(_stack, experts["down_proj.weight"]),
            f"{prefix}down_proj_bias": partial(_stack, experts["down_proj.bias"]),
        }
    return merged


def _gate_up(experts: _Experts, kind: str) -> Floats:
    """Return gate and up, which alternate: [experts, inputs, 2 * outputs], or [experts, 2 * outputs]."""
    gate, up = _stack(experts[f"gate_proj.{kind}"]), _stack(experts[f"up_proj.{kind}"])
    return np.stack([gate, up], axis=-1).reshape(*gate.shape[:-1], -1)


def _stack(experts: list[TensorRows]) -> Floats:
    """Return the transposed matrices of all experts, [experts, inputs, outputs], or their biases."""
    values = [rows.rows(0, rows.shape[0]) for rows in experts]
    return np.stack([each.T if len(experts[0].tensor.shape) > 2 else each[0] for each in values])
