"""A decoder on our own kernels, in the shape of `CausalLM`."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch import logit_masks, rotary
from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.cuda.attention import attend_chunks, attend_decodes
from fllm_backends.torch.cuda.batch import Batch, decodes_size, prepare
from fllm_backends.torch.cuda.graphs import DecodeGraphs, GraphRecorder, Recorder
from fllm_backends.torch.cuda.linear import KINDS, Product
from fllm_backends.torch.cuda.pointwise import gate, normalize, place_heads
from fllm_backends.torch.model import Linear, RMSNorm, Weights

_PROGRAMS_PER_PROCESSOR = 2


class _Layer(NamedTuple):
    input_norm: RMSNorm
    qkv: Product
    head_norms: tuple[RMSNorm, RMSNorm] | None
    """Of queries and keys."""
    output: Product
    post_norm: RMSNorm
    gate_up: Product
    down: Product
    window: int | None
    rotary: bool


class CudaLM:
    """Token ids and positions to hidden states to logits, in the weights' own dtype.

    ``quantization``: a key of `KINDS`. Up to ``max_rows`` that decode together, each of up to
    ``max_positions``, are a recorded graph; ``record`` is there for a device that has none.
    """

    page = 1

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
        self.device = weights.head.device
        self.cache_dtype = weights.head.dtype
        self._embedding = weights.embedding
        self._layers = _layers(a, weights, quantization)
        self._norm = weights.norm
        self._head = KINDS[quantization](Linear(weights.head))
        self._frequencies = rotary.frequencies(a.rope, a.head_dim).to(self.device)
        self._amplitude = rotary.amplitude(a.rope)
        self._max_rows = max_rows
        self._max_positions = max_positions
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # where this thread starts kernels and records graphs
        self._record = record or GraphRecorder()
        self._graphs: DecodeGraphs | None = None
        self._programs = _PROGRAMS_PER_PROCESSOR * _processors(self.device)

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Hidden states of the new tokens: [tokens, hidden]. Their keys and values enter the cache.

        The host waits for nothing, if the ``token_ids`` are its own. What decodes alone is given in
        memory that the next such batch overwrites.
        """
        host = prepare(batch.rows, token_ids.cpu().numpy().astype(np.int32), cache.block_size)
        self._graphs = self._graphs or self._make_graphs(cache)
        if self._graphs.takes(host):
            return self._graphs.run(host)
        packed = host.pack(pinned=self.device.type == "cuda").to(self.device, non_blocking=True)
        return self._compute(host.view(packed), cache=cache)

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, hidden] to [rows, vocabulary], float32."""
        return self._head(hidden).float()

    def choose(self, hidden: Tensor, allowed: Tensor | None = None) -> list[int]:
        """The likeliest token of each row of [rows, hidden]."""
        tokens: list[int] = logit_masks.apply(allowed, self.logits(hidden)).argmax(-1).tolist()
        return tokens

    def _make_graphs(self, cache: KVCache) -> DecodeGraphs:
        blocks = -(-self._max_positions // cache.block_size)
        buffer = torch.zeros(decodes_size(self._max_rows, blocks), dtype=torch.int32, device=self.device)
        return DecodeGraphs(partial(self._compute, cache=cache), self._record, buffer, self._max_rows)

    def _compute(self, batch: Batch, *, cache: KVCache) -> Tensor:
        x = F.embedding(batch.token_ids, self._embedding)
        rotation = rotary.rotations(batch.positions, self._frequencies, self._amplitude)
        for index, layer in enumerate(self._layers):
            heads = layer.qkv(x, norm=layer.input_norm)
            turned = rotation if layer.rotary else None
            stored = cache.layer(index)
            query = place_heads(heads, layer.head_norms, turned, batch.slots, stored, self.architecture)
            layer.output(self._attend(query, stored, batch, layer.window).flatten(1), onto=x)
            layer.down(gate(layer.gate_up(x, norm=layer.post_norm)), onto=x)
        return normalize(x, self._norm)

    def _attend(
        self, query: Tensor, stored: tuple[Tensor, Tensor], batch: Batch, window: int | None
    ) -> Tensor:
        out = torch.empty_like(query)
        if len(batch.decodes.tokens):
            attend_decodes(query, *stored, batch, window, self._programs, out)
        if len(batch.tiles):
            attend_chunks(query, *stored, batch, window, out)
        return out


def _layers(a: Architecture, weights: Weights, quantization: str) -> list[_Layer]:
    product = KINDS[quantization]
    return [
        _Layer(
            layer.input_norm,
            product(layer.qkv),
            (layer.q_norm, layer.k_norm) if layer.q_norm and layer.k_norm else None,
            product(layer.output),
            layer.post_attention_norm,
            product(layer.gate_up),
            product(layer.down),
            kind.window,
            kind.rotary,
        )
        for layer, kind in zip(weights.layers, a.layers, strict=True)
    ]


def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
