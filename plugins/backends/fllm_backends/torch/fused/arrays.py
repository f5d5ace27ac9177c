"""What the kernels are given, as named tuples of arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fllm_backends.torch.fused.packing import Floats

Integers = NDArray[np.int64]


class Shape(NamedTuple):
    """What the kernels must know of the model."""

    heads: int
    kv_heads: int
    eps: np.float32


class Bank(NamedTuple):
    """Where a matrix of each layer lies."""

    places: Integers
    """Addresses of their records."""
    records: Integers
    """Bytes of one record."""
    bias: Floats
    """[layers, out]"""


class Layers(NamedTuple):
    """The weights of all layers; norms are [layers, size]."""

    input_norm: Floats
    post_norm: Floats
    q_norm: Floats
    k_norm: Floats
    qkv: Bank
    output: Bank
    gate_up: Bank
    down: Bank
    window: Integers
    """Of each layer; 0 for none."""
    rotary: NDArray[np.bool_]


class Batch(NamedTuple):
    """Who computes what; one entry for each new token, but for the last two."""

    positions: Integers
    slots: Integers
    cosine: Floats
    sine: Floats
    """[tokens, head_dim / 2]"""
    tables: Integers
    """Pages of each row, padded: [rows, pages]."""
    tiles: Integers
    """Neighbouring tokens that attend together: [tiles, 3], the first, how many, and whose."""


class Best(NamedTuple):
    """What each thread found: [threads, rows], and what it may find."""

    values: Floats
    places: Integers
    masks: NDArray[np.int32]
    """[rows, words], a bit for each token; no rows where there is no limit."""


class Scratch(NamedTuple):
    """Room for what a layer computes: [tokens, ...], and for each thread [threads, ...]."""

    hidden: NDArray[np.int8]
    hidden_scales: Floats
    """[tokens, groups, 2], as the others: what 1 is worth, and the sum."""
    heads: NDArray[np.int8]
    heads_scales: Floats
    wide: NDArray[np.int8]
    wide_scales: Floats
    qkv: Floats
    row: Floats
    gates: Floats
    queries: Floats
    scores: Floats
    mixed: Floats
    total: Floats
