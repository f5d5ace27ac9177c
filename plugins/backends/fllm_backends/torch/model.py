"""The decoders of the Llama family: one flat batch of tokens through the layers, no padding, no framework."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch import logit_masks, rotary
from fllm_backends.torch.attention import AttentionBatch, KVCache


@dataclass(frozen=True, slots=True)
class Linear:
    """``x @ weight.T + bias``; weight: [out, in]."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class RMSNorm:
    """Divides by the root of the mean square over the last dimension, then scales."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one decoder layer; queries, keys and values are one product, gate and up another."""

    input_norm: RMSNorm
    qkv: Linear
    output: Linear
    post_attention_norm: RMSNorm
    gate_up: Linear
    down: Linear
    q_norm: RMSNorm | None = None
    k_norm: RMSNorm | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of a decoder."""

    embedding: Tensor
    layers: Iterable[Layer]
    """Perhaps read from the disk while they are iterated."""
    norm: RMSNorm
    head: Tensor
    """[vocabulary, hidden]; the embedding itself where they are tied."""


class Decoder(Protocol):
    """Token ids and positions to hidden states to logits."""

    architecture: Architecture
    device: torch.device
    cache_dtype: torch.dtype
    """What the KV cache holds."""
    page: int
    """Blocks of the KV cache hold a multiple of so many tokens."""

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """[tokens] to [tokens, hidden], as `logits` takes them. Their keys and values enter the cache."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, hidden] to [rows, vocabulary], float32."""
        ...

    def choose(self, hidden: Tensor, allowed: Tensor | None = None) -> list[int]:
        """The likeliest allowed token of each row of [rows, hidden]: of equals the first.

        ``allowed`` is [rows, words], a bit for each token; without it, all are.
        """
        ...


class CausalLM:
    """A decoder on torch's own operations, in the weights' own dtype."""

    page = 1

    def __init__(self, architecture: Architecture, weights: Weights) -> None:
        self.architecture = architecture
        self.device = weights.head.device
        self.cache_dtype = weights.head.dtype
        self.weights = replace(weights, layers=tuple(weights.layers))
        self._frequencies = rotary.frequencies(architecture.rope, architecture.head_dim).to(
            weights.head.device
        )
        self._amplitude = rotary.amplitude(architecture.rope)

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Hidden states of the new tokens: [tokens, hidden]. Their keys and values enter the cache."""
        x = F.embedding(token_ids.to(self.device), self.weights.embedding)
        cosine, sine = rotary.rotations(batch.positions, self._frequencies, self._amplitude)
        rotation = cosine.to(x.dtype), sine.to(x.dtype)
        for index, layer in enumerate(self.weights.layers):
            x = x + self._attend(index, layer, layer.input_norm(x), rotation, batch, cache)
            x = x + _feed_forward(layer, layer.post_attention_norm(x))
        return self.weights.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, hidden] to [rows, vocabulary], float32."""
        return F.linear(hidden, self.weights.head).float()

    def choose(self, hidden: Tensor, allowed: Tensor | None = None) -> list[int]:
        """The likeliest token of each row of [rows, hidden]."""
        tokens: list[int] = logit_masks.apply(allowed, self.logits(hidden)).argmax(-1).tolist()
        return tokens

    def _attend(
        self,
        index: int,
        layer: Layer,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        batch: AttentionBatch,
        cache: KVCache,
    ) -> Tensor:
        a = self.architecture
        heads = layer.qkv(x).view(len(x), a.heads + 2 * a.kv_heads, a.head_dim)
        query, key, value = torch.split(heads, [a.heads, a.kv_heads, a.kv_heads], dim=1)
        if layer.q_norm and layer.k_norm:
            query, key = layer.q_norm(query), layer.k_norm(key)
        kind = a.layers[index]
        if kind.rotary:
            query, key = rotary.rotate(query, *rotation), rotary.rotate(key, *rotation)
        cache.write(index, batch.slots, key, value)
        return layer.output(batch.attend(query, *cache.layer(index), kind.window).flatten(1))


def _feed_forward(layer: Layer, x: Tensor) -> Tensor:
    gate, up = layer.gate_up(x).chunk(2, dim=-1)
    return layer.down(F.silu(gate) * up)
