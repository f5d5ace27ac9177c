"""A decoder on the compiled kernels, with the interface of `CausalLM`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch.attention import AttentionBatch, KVCache, KVShape
from fllm_backends.torch.fused import layers, lm_head
from fllm_backends.torch.fused.arrays import (
    ArgmaxState,
    Batch,
    Head,
    Integers,
    ModelShape,
    Scratch,
    TileBuffers,
)
from fllm_backends.torch.fused.attention import CACHE
from fllm_backends.torch.fused.formats import GROUP, PANEL
from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.fused.layer_packing import LayerPacker, OwnParts, PaddedSizes, padded, shared_experts
from fllm_backends.torch.fused.lm_head import Computes
from fllm_backends.torch.fused.low_rank import LowRankAdapters
from fllm_backends.torch.fused.matmul import PLANES_15_BIT, ROWS
from fllm_backends.torch.fused.packing import Floats
from fllm_backends.torch.fused.pages import PagePlaces, PageTables, tile_rows, tiles, tokens_per_tile
from fllm_backends.torch.fused.rotary_tables import RotaryTables
from fllm_backends.torch.fused.simd_attention import CacheType, cache_shapes
from fllm_backends.torch.fused.simd_kernels import SCALES, Activation
from fllm_backends.torch.fused.target import targets
from fllm_backends.torch.model import Weights
from fllm_backends.torch.ranks import ALONE, Ranks

MAX_GROWTH = 1.5
"""How many times the weights may become by padding."""
ACTIVATIONS = {"silu": Activation.SILU, "gelu": Activation.GELU, "gelu_tanh": Activation.GELU_TANH}


class _Cache(NamedTuple):
    """A KV cache, as the kernels read it. Keys and values are views of the bits of their numbers."""

    source: KVCache
    keys: NDArray[np.uint16]
    """[layers, pages, kv_heads, ...], as `cache_shapes` says."""
    values: NDArray[np.uint16]
    """The same."""
    tables: PageTables


class Inputs(NamedTuple):
    """What the layers compute."""

    batch: Batch
    x: Floats
    keys: NDArray[np.uint16]
    values: NDArray[np.uint16]


def is_supported(a: Architecture) -> bool:
    """Return whether the processor has the instructions, and padding does not multiply the model's size."""
    return bool(targets()) and padded(a).parameters <= MAX_GROWTH * a.parameters


class FusedLM:
    """A decoder on packed weights.

    ``threads`` is the number of threads that compute.
    Blocks of the KV cache are divided into pages of 16 tokens, whose layout is the kernels' own. Sizes that
    are not multiples of 32 are padded with zeros.
    """

    cache_dtype = torch.bfloat16 if CACHE == CacheType.BFLOAT else torch.float16
    block_multiple = PANEL

    def __init__(
        self,
        a: Architecture,
        weights: Weights,
        *,
        threads: int,
        ranks: Ranks = ALONE,
        cores: Sequence[int] = (),
    ) -> None:
        packer = LayerPacker(a, threads, ranks)
        self.architecture = a
        self.vocab_size = a.vocab_size
        self._sizes = sizes = packer.sizes
        self._own = own = packer.own
        self.kv_shapes = (KVShape(len(own.kv_heads), sizes.head_dim, sizes.head_dim),) * len(a.layers)
        self.device = torch.device("cpu")
        self._threads = threads
        self._kernel_threads = KernelThreads(threads, cores)
        self.low_rank = LowRankAdapters(len(a.layers), threads, packer.places(), sizes.inner)
        self._shape = _model_shape(a, sizes, own)
        self._layers = packer.pack_layers(weights.layers)
        self._norm = packer.pack_norm(weights.norm)
        head = packer.pack_head(weights.head)
        tied = weights.embedding is weights.head
        embedding = head if tied else packer.pack_head(weights.embedding)
        self._head = packer.matrices([head], PLANES_15_BIT)
        self._embedding = lm_head.embedding(embedding)
        self._packed = packer.packed, embedding  # the kernels hold their addresses
        self._rotary = RotaryTables(a.ropes, a.rotary_dim)
        self._scratch = self._step_scratch = self._allocate_scratch(1)
        self._cache: _Cache | None = None
        self._no_state, self._no_logits = self._argmax_state(0), np.empty((0, 0), np.float32)

    def compile(self) -> None:
        """Compile the kernels, or load those that an earlier start has compiled."""
        cache = KVCache(self.kv_shapes, 1, PANEL, like=torch.empty(0, dtype=self.cache_dtype))
        row = Row(
            token_ids=[0],
            prompt_length=1,
            start=0,
            count=1,
            block_table=[0],
            sampling=SamplingParams(max_tokens=1),
            seed=0,
            sample=True,
        )
        hidden = self.forward(torch.tensor([0]), AttentionBatch([row], PANEL, self.device), cache)
        self.logits(hidden)
        self.greedy_tokens(hidden)

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Return the hidden states of the new tokens, before the final norm: [tokens, padded hidden].

        They are divided by `Architecture.residual_scale`, so that outputs of layers are just added to them.
        """
        inputs = self._inputs(token_ids, batch, cache)
        self._run_layers(inputs)
        return torch.from_numpy(inputs.x)

    def next_tokens(
        self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache, allowed: Tensor | None = None
    ) -> list[int]:
        """Return the most likely token after each of the new tokens."""
        state = self._argmax_state(len(token_ids), allowed)
        self._run_all(self._inputs(token_ids, batch, cache), Computes.TOKENS, state, self._no_logits)
        chosen: list[int] = state.chosen.tolist()
        return chosen

    def next_logits(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Return the float32 logits after each of the new tokens: [tokens, vocabulary]."""
        out = np.empty((len(token_ids), len(self._own.vocabulary)), np.float32)
        self._run_all(self._inputs(token_ids, batch, cache), Computes.LOGITS, self._no_state, out)
        return self._scale_logits(torch.from_numpy(out))

    def _inputs(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Inputs:
        a = self.architecture
        x = self._embed(token_ids.numpy())
        if a.embedding_scale != a.residual_scale:
            x *= np.float32(a.embedding_scale / a.residual_scale)
        if self._cache is None or self._cache.source is not cache:
            self._cache = self._read_cache(cache)
        return Inputs(self._batch(batch, self._cache.tables), x, self._cache.keys, self._cache.values)

    def _embed(self, token_ids: Integers) -> Floats:
        x = np.empty((len(token_ids), self._sizes.hidden), np.float32)
        lm_head.embed(token_ids, self._embedding, x)
        return x

    def _run_layers(self, inputs: Inputs) -> None:
        """Run all layers over ``inputs.x`` in place."""
        self._run_all(inputs, Computes.NOTHING, self._no_state, self._no_logits)

    def _run_all(self, inputs: Inputs, computes: Computes, state: ArgmaxState, logits: Floats) -> None:
        """Run all layers, and what is to follow."""
        head = Head(int(computes), self._norm, self._head, state, logits)
        scratch = self._scratch_for(len(inputs.x))
        self._run(layers.forward, self._shape, self._layers, *inputs, head, scratch)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return [rows, vocabulary] float32 logits of [rows, hidden] states."""
        return self._scale_logits(self._project(hidden))

    def _scale_logits(self, projected: Tensor) -> Tensor:
        a, logits = self.architecture, projected[:, : self.vocab_size].contiguous()
        if a.logit_scale != 1.0:
            logits *= a.logit_scale
        if a.logit_softcap is not None:
            logits.div_(a.logit_softcap).tanh_().mul_(a.logit_softcap)
        return logits

    def greedy_tokens(self, hidden: Tensor, allowed: Tensor | None = None) -> list[int]:
        """Return the most likely token of each row of [rows, hidden], without storing all logits."""
        state = self._argmax_state(len(hidden), allowed)
        self._run_head(lm_head.greedy_tokens, hidden, state)
        chosen: list[int] = state.chosen.tolist()
        return chosen

    def _argmax_state(self, rows: int, allowed: Tensor | None = None) -> ArgmaxState:
        shape = self._threads, rows
        masks = np.empty((0, 0), np.int32) if allowed is None else allowed.numpy()
        values, tokens = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64)
        return ArgmaxState(values, tokens, masks, np.empty(rows, np.int64))

    def _project(self, hidden: Tensor) -> Tensor:
        out = np.empty((len(hidden), len(self._own.vocabulary)), np.float32)
        self._run_head(lm_head.logits, hidden, out)
        return torch.from_numpy(out)

    def _run_head(self, kernel: Callable[..., None], hidden: Tensor, out: Any) -> None:
        x = hidden.contiguous().numpy()
        self._run(kernel, 0, self._shape.eps, self._norm, self._head, x, out, self._scratch_for(len(x)))

    def _run(self, kernel: Callable[..., None], *arguments: Any) -> None:
        """Run a kernel in all threads."""
        phases = len(self.architecture.layers) * layers.PHASES + lm_head.PHASES
        self._kernel_threads.run(kernel, phases, *arguments)

    def _read_cache(self, cache: KVCache) -> _Cache:
        a = self.architecture
        shape = len(a.layers), -1, len(self._own.kv_heads)
        shapes = cache_shapes(CacheType(CACHE), self._sizes.head_dim, self._sizes.head_dim)
        keys, values = (
            array.reshape(len(a.layers), -1).view(np.uint16).reshape(*shape, *page)
            for array, page in zip(cache.arrays(), shapes, strict=True)
        )
        return _Cache(cache, keys, values, PageTables(cache.block_size // PANEL))

    def _batch(self, batch: AttentionBatch, tables: PageTables) -> Batch:
        """Build the kernels' batch."""
        places = PagePlaces.of(batch.rows, tables)
        return Batch(
            places.positions,
            places.slots,
            *self._rotary.rotations(places.positions, batch),
            places.tables,
            tiles(batch.rows, tokens_per_tile(self.architecture.heads, self.architecture.kv_heads)),
            self.low_rank.select(batch.rows),
        )

    def _scratch_for(self, tokens: int) -> Scratch:
        if tokens > len(self._scratch.hidden):
            self._scratch = self._allocate_scratch(tokens)
        if tokens != len(self._step_scratch.hidden):
            own = Scratch._fields.index("outputs")
            parts = [array[:tokens] for array in self._scratch[:own]]
            self._step_scratch = Scratch._make([*parts, *self._scratch[own:]])
        return self._step_scratch

    def _allocate_scratch(self, tokens: int) -> Scratch:
        a, threads, sizes, own = self.architecture, self._threads, self._sizes, self._own
        heads = len(own.heads) * sizes.head_dim
        queries = tile_rows(a.heads, a.kv_heads)
        experts, per_token = _experts(a)
        slots = tokens * per_token

        def floats(*shape: int) -> Floats:
            return np.zeros(shape, np.float32)

        return Scratch(
            hidden=np.empty((tokens, PLANES_15_BIT * sizes.hidden), np.int8),
            hidden_scales=floats(tokens, sizes.hidden // GROUP, SCALES),
            attention=np.empty((tokens, heads), np.int8),
            attention_scales=floats(tokens, heads // GROUP, SCALES),
            inner=np.empty((tokens, len(own.inner)), np.int8),
            inner_scales=floats(tokens, len(own.inner) // GROUP, SCALES),
            qkv=floats(tokens, heads + 2 * len(own.kv_heads) * sizes.head_dim),
            outputs=floats(tokens if a.post_norm else 0, sizes.hidden),
            router_logits=floats(tokens, a.experts.count + 1 if a.experts else 0),
            chosen=np.zeros((tokens, per_token), np.int64),
            chosen_weights=floats(tokens, per_token),
            expert_hidden=np.empty((slots, PLANES_15_BIT * sizes.hidden), np.int8),
            expert_hidden_scales=floats(slots, sizes.hidden // GROUP, SCALES),
            expert_inner=np.empty((slots, len(own.expert_inner)), np.int8),
            expert_inner_scales=floats(slots, len(own.expert_inner) // GROUP, SCALES),
            slot_tokens=np.zeros(slots, np.int64),
            slot_weights=floats(slots),
            expert_ends=np.zeros(experts, np.int64),
            jobs=np.zeros((min(slots, experts + slots // ROWS), 3), np.int64),
            norm_rows=floats(max(threads, tokens if a.experts else 1), sizes.hidden),
            gate_up=floats(threads, ROWS * 2 * GROUP),
            tile=TileBuffers.allocate(threads, queries, (sizes.head_dim, sizes.head_dim), CacheType(CACHE)),
        )


def _experts(a: Architecture) -> tuple[int, int]:
    """Return the number of experts of a layer, and of those that compute each token, with the shared ones."""
    if not a.experts:
        return 0, 0
    shared = shared_experts(a.experts)
    return a.experts.count + shared, a.experts.per_token + shared


def _model_shape(a: Architecture, sizes: PaddedSizes, own: OwnParts) -> ModelShape:
    padding = a.hidden_size / sizes.hidden
    return ModelShape(
        heads=len(own.heads),
        kv_heads=len(own.kv_heads),
        eps=np.float32(a.norm_eps * padding / a.residual_scale**2),
        output_eps=np.float32(a.norm_eps * padding),
        head_eps=np.float32(a.norm_eps * a.head_dim / sizes.head_dim),
        attention_scale=np.float32(
            1 / np.sqrt(np.float32(a.head_dim)) if a.attention_scale is None else a.attention_scale
        ),
        softcap=np.full(1, a.attention_softcap or 0, np.float32),
        sinks=np.empty(0, np.float32),
        activation=int(ACTIVATIONS[a.activation]),
        experts=a.experts.count if a.experts else 0,
        experts_per_token=a.experts.per_token if a.experts else 0,
        normalize_experts=bool(a.experts and a.experts.normalized),
    )
