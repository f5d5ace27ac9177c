"""Named tuples of arrays that the kernels take as arguments."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fllm_backends.torch.fused.packing import Floats
from fllm_backends.torch.fused.simd_attention import BLOCK, PAGES, PAGES_AHEAD, STATE, CacheType

Integers = NDArray[np.int64]


class ModelShape(NamedTuple):
    """The constants of the model that the kernels need."""

    heads: int
    kv_heads: int
    eps: np.float32
    output_eps: np.float32
    """Of the norms of outputs."""
    head_eps: np.float32
    """Of the norms of queries and keys."""
    attention_scale: np.float32
    softcap: Floats
    """What attention scores are capped to, one number; 0 for no limit."""
    sinks: Floats
    """Score of each head for attending to nothing; no elements if the model has none."""
    activation: int
    """An `Activation`."""
    experts: int
    """Number of experts, without shared ones; 0 for none."""
    experts_per_token: int
    normalize_experts: bool
    """Whether the weights of the chosen experts are divided by their sum."""


class PackedMatrices(NamedTuple):
    """One packed matrix of each layer."""

    panels: Integers
    """Addresses of the panels of each matrix: [layers, out / PANEL]."""
    ends: Integers
    """Up to which panel the panels after each one follow it in memory: [layers, out / PANEL]."""
    kernels: Integers
    """Address of the product with each panel, which depends on its format: [layers, out / PANEL]."""
    bias: Floats
    """[layers, out]"""


class ExpertWeights(NamedTuple):
    """The experts of all layers. The shared ones come last."""

    router_index: Integers
    """Which router each layer has: [layers]."""
    router: Floats
    """[routers, experts + 1, hidden]; the last row is the gate of the shared experts."""
    gate_up: PackedMatrices
    """The matrices of all experts of a layer are one. The bias is [1, outputs of an expert]."""
    down: PackedMatrices


class LayerWeights(NamedTuple):
    """The weights of all layers. Norms are [layers, size], or [layers, 0] if the model does not have them.

    They include what makes the mean square of a padded row that of the row without padding.
    """

    input_norm: Floats
    output_norm: Floats
    mlp_norm: Floats
    mlp_output_norm: Floats
    q_norm: Floats
    """Of a head, or of all heads together."""
    k_norm: Floats
    qkv: PackedMatrices
    output: PackedMatrices
    gate_up: PackedMatrices
    down: PackedMatrices
    experts: ExpertWeights
    sparse: NDArray[np.bool_]
    """Whether each layer has experts in place of ``gate_up`` and ``down``."""
    window: Integers
    """Sliding window of each layer: [layers]; 0 for none."""
    rope: Integers
    """Which rotary embeddings each layer has: [layers]; -1 for none."""


class Batch(NamedTuple):
    """The batch to compute. Positions and slots have one entry for each new token."""

    positions: Integers
    slots: Integers
    cosine: Floats
    sine: Floats
    """[ropes, tokens, rotary_dim / 2]"""
    page_tables: Integers
    """Pages of each row, padded: [rows, pages]."""
    tiles: Integers
    """Neighbouring tokens that attend together: [tiles, 3], the first token, their number and their row."""
    low_rank: LowRank


class LowRank(NamedTuple):
    """The adapters of a batch. There are no places if no token has one."""

    places: Integers
    """Which adapter each token has: [tokens]; 0 for none."""
    values: Floats
    """``a``, [rank, in], and the transposed ``b``, [rank, out], of each matrix in turn."""
    offsets: Integers
    """Where those of a matrix begin: [adapters, layers, matrices]."""
    ranks: Integers
    """[adapters, layers, matrices]"""
    rows: Floats
    """A row of floats for each thread."""
    gate_up: Floats
    """What is added to gates and ups: [tokens, 2 inner]."""

    @classmethod
    def none(cls) -> LowRank:
        """Return that of a batch without adapters."""
        floats, integers = np.empty((0, 0), np.float32), np.empty((0, 0, 0), np.int64)
        return cls(np.empty(0, np.int64), np.empty(0, np.float32), integers, integers, floats, floats)


class ArgmaxState(NamedTuple):
    """The best token that each thread has found, [threads, rows], and the tokens that are allowed."""

    values: Floats
    tokens: Integers
    masks: NDArray[np.int32]
    """[rows, words], a bit for each token; no rows if all tokens are allowed."""
    chosen: Integers
    """The best token of all threads: [rows]."""


class Head(NamedTuple):
    """The output head, and what it computes."""

    computes: int
    """A `Computes`."""
    norm: Floats
    matrix: PackedMatrices
    best: ArgmaxState
    logits: Floats
    """[rows, vocabulary]"""


class TileBuffers(NamedTuple):
    """Buffers of each thread for an attention tile: [threads, queries, ...]."""

    queries: Floats | NDArray[np.uint16]
    """In float32, or the bits of bfloat16."""
    scores: Floats
    """Of a block of keys."""
    weights: Floats | NDArray[np.uint16]
    weighted: Floats
    states: Floats
    pages: Integers
    """Addresses of the pages of a block, of keys and of values: [threads, 2, pages]."""

    @classmethod
    def allocate(cls, threads: int, queries: int, dims: tuple[int, int], kind: CacheType) -> TileBuffers:
        """Return the buffers for tiles of ``queries`` rows; ``dims`` are those of keys and of values."""
        dtype: type[Any] = np.uint16 if kind is CacheType.BFLOAT else np.float32
        shape = threads, queries
        return cls(
            np.zeros((*shape, dims[0]), dtype),
            np.zeros((*shape, BLOCK), np.float32),
            np.zeros((*shape, BLOCK), dtype),
            np.zeros((*shape, dims[1]), np.float32),
            np.zeros((*shape, STATE), np.float32),
            np.zeros((threads, 2, PAGES + PAGES_AHEAD), np.int64),
        )


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
    outputs: Floats
    """Outputs of attention or the feed-forward layer, if they are normalized: [tokens, hidden]."""
    router_logits: Floats
    chosen: Integers
    """Experts of each token, the shared ones included: [tokens, experts of a token]."""
    chosen_weights: Floats
    expert_hidden: NDArray[np.int8]
    """Rows sorted by expert: [slots, ...], as the following."""
    expert_hidden_scales: Floats
    expert_inner: NDArray[np.int8]
    expert_inner_scales: Floats
    slot_tokens: Integers
    slot_weights: Floats
    expert_ends: Integers
    jobs: Integers
    """An expert, its first slot, and a number of slots: [jobs, 3]."""
    norm_rows: Floats
    """For each thread, or for each token if a router reads them."""
    gate_up: Floats
    tile: TileBuffers
