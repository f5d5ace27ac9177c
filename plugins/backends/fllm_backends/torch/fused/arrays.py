"""Named tuples of arrays that the kernels take as arguments."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fllm_backends.torch.fused.packing import Floats

Integers = NDArray[np.int64]


class ModelShape(NamedTuple):
    """The constants of the model that the kernels need."""

    heads: int
    kv_heads: int
    eps: np.float32
    activation: int
    """An `Activation`."""


class PackedMatrices(NamedTuple):
    """One packed matrix of each layer."""

    panels: Integers
    """Addresses of the panels of each matrix: [layers, out / PANEL]."""
    kernels: Integers
    """Address of the product with each panel, which depends on its format: [layers, out / PANEL]."""
    bias: Floats
    """[layers, out]"""


class LayerWeights(NamedTuple):
    """The weights of all layers; norms are [layers, size]."""

    input_norm: Floats
    post_norm: Floats
    q_norm: Floats
    k_norm: Floats
    qkv: PackedMatrices
    output: PackedMatrices
    gate_up: PackedMatrices
    down: PackedMatrices
    window: Integers
    """Sliding window of each layer: [layers]; 0 for none."""
    rotary: NDArray[np.bool_]


class Batch(NamedTuple):
    """The batch to compute. Fields have one entry for each new token, except the last two."""

    positions: Integers
    slots: Integers
    cosine: Floats
    sine: Floats
    """[tokens, head_dim / 2]"""
    page_tables: Integers
    """Pages of each row, padded: [rows, pages]."""
    tiles: Integers
    """Neighbouring tokens that attend together: [tiles, 3], the first token, their number and their row."""


class ArgmaxState(NamedTuple):
    """The best token that each thread has found, [threads, rows], and the tokens that are allowed."""

    values: Floats
    tokens: Integers
    masks: NDArray[np.int32]
    """[rows, words], a bit for each token; no rows if all tokens are allowed."""


class Scratch(NamedTuple):
    """Buffers for the results of a layer: [tokens, ...], and for each thread [threads, ...]."""

    hidden: NDArray[np.int8]
    hidden_scales: Floats
    """[tokens, groups, SCALES], as the other scales: what `quantize_groups` stores of a group."""
    attention: NDArray[np.int8]
    attention_scales: Floats
    inner: NDArray[np.int8]
    inner_scales: Floats
    qkv: Floats
    norm_row: Floats
    gate_up: Floats
    queries: Floats
    scores: Floats
    weighted: Floats
    softmax_sums: Floats
