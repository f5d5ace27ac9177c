"""A decoder on the Triton kernels, with the interface of `CausalLM`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fllm_backends.checkpoints.architecture import Architecture, LayerKind
from fllm_backends.torch import logit_masks, rotary
from fllm_backends.torch.attention import AttentionBatch, KVCache, uniform_shapes
from fllm_backends.torch.cuda.attention import attend, decode_programs
from fllm_backends.torch.cuda.batch import Batch, build_batch, packed_decode_size
from fllm_backends.torch.cuda.graphs import DecodeGraphs, GraphRecorder, Recorder
from fllm_backends.torch.cuda.linear import LINEAR_KINDS, LinearOp, load_linear
from fllm_backends.torch.cuda.pointwise import norm_rope_and_cache, rms_norm, silu_and_mul
from fllm_backends.torch.model import Layer, Linear, Mlp, RMSNorm, Weights
from fllm_backends.torch.weight_matrix import materialize


class _Layer(NamedTuple):
    input_norm: RMSNorm
    qkv: LinearOp
    head_norms: tuple[RMSNorm, RMSNorm] | None
    """Norms of queries and keys."""
    output: LinearOp
    post_norm: RMSNorm
    gate_up: LinearOp
    down: LinearOp
    window: int | None
    rotary: bool


class CudaLM:
    """A decoder in the dtype of the weights.

    ``quantization`` is a key of `LINEAR_KINDS`. Batches of up to ``max_rows`` decodes, each of up to
    ``max_positions`` tokens, run as CUDA graphs. ``record`` replaces the graph recorder on other devices.
    """

    block_multiple = 1

    def __init__(
        self,
        a: Architecture,
        weights: Weights,
        *,
        quantization: str,
        max_rows: int,
        max_positions: int,
        record: Recorder | None = None,
    ) -> None:
        self.architecture = a
        self.vocab_size = a.vocab_size
        self.kv_shapes = uniform_shapes(a)
        like = weights.norm.weight
        self.device = like.device
        self.cache_dtype = like.dtype
        self._embedding = materialize(weights.embedding, like)
        self._layers = _layers(a, weights, quantization)
        self._norm = weights.norm
        tied = weights.head is weights.embedding
        head = self._embedding if tied else materialize(weights.head, like)
        self._head = LINEAR_KINDS[quantization](Linear(head))
        self._frequencies = rotary.frequencies(a.ropes[0], a.rotary_dim).to(self.device)
        self._amplitude = rotary.amplitude(a.ropes[0])
        self._max_rows = max_rows
        self._max_positions = max_positions
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # this thread starts kernels and records graphs there
        self._record = record or GraphRecorder()
        self._graphs: DecodeGraphs | None = None
        self._programs = decode_programs(self.device)

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Return the hidden states of the new tokens, [tokens, hidden]; store keys and values in the cache.

        The host does not wait if ``token_ids`` are in host memory. The result of a batch of decodes is
        overwritten by the next such batch.
        """
        host = build_batch(batch.rows, token_ids.cpu().numpy().astype(np.int32), cache.block_size)
        self._graphs = self._graphs or self._make_graphs(cache)
        if self._graphs.can_run(host):
            return self._graphs.run(host)
        packed = host.pack(pinned=self.device.type == "cuda").to(self.device, non_blocking=True)
        return self._compute(host.view(packed), cache=cache)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return [rows, vocabulary] float32 logits of [rows, hidden] states."""
        return self._head(hidden).float()

    def greedy_tokens(self, hidden: Tensor, allowed: Tensor | None = None) -> list[int]:
        """Return the most likely token of each row of [rows, hidden]."""
        tokens: list[int] = logit_masks.apply(allowed, self.logits(hidden)).argmax(-1).tolist()
        return tokens

    def _make_graphs(self, cache: KVCache) -> DecodeGraphs:
        blocks = -(-self._max_positions // cache.block_size)
        buffer = torch.zeros(
            packed_decode_size(self._max_rows, blocks), dtype=torch.int32, device=self.device
        )
        return DecodeGraphs(partial(self._compute, cache=cache), self._record, buffer, self._max_rows)

    def _compute(self, batch: Batch, *, cache: KVCache) -> Tensor:
        x = F.embedding(batch.token_ids, self._embedding)
        rotation = rotary.rotations(batch.positions, self._frequencies, self._amplitude)
        for index, layer in enumerate(self._layers):
            heads = layer.qkv(x, norm=layer.input_norm)
            layer_cache = cache.layer(index)
            query = norm_rope_and_cache(
                heads,
                layer.head_norms,
                rotation if layer.rotary else None,
                batch.slots,
                layer_cache,
                self.architecture,
            )
            attended = attend(query, layer_cache, batch, layer.window, self._programs)
            layer.output(attended.flatten(1), add_to=x)
            layer.down(silu_and_mul(layer.gate_up(x, norm=layer.post_norm)), add_to=x)
        return rms_norm(x, self._norm)


def _layers(a: Architecture, weights: Weights, quantization: str) -> list[_Layer]:
    make_linear = partial(load_linear, quantization=quantization, like=weights.norm.weight)
    return [_layer(layer, kind, make_linear) for layer, kind in zip(weights.layers, a.layers, strict=True)]


def _layer(layer: Layer, kind: LayerKind, make_linear: Callable[[Linear], LinearOp]) -> _Layer:
    assert isinstance(layer.mlp, Mlp), "the factory checks the features"
    assert layer.input_norm, "the factory checks the features"
    assert layer.mlp_norm, "the factory checks the features"
    return _Layer(
        layer.input_norm,
        make_linear(layer.qkv),
        (layer.q_norm, layer.k_norm) if layer.q_norm and layer.k_norm else None,
        make_linear(layer.output),
        layer.mlp_norm,
        make_linear(layer.mlp.gate_up),
        make_linear(layer.mlp.down),
        kind.window,
        kind.rotary,
    )
