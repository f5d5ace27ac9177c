"""Llama-family decoders in torch operations, on one flat batch of tokens without padding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch import logit_masks, rotary
from fllm_backends.torch.attention import AttentionBatch, KVCache, KVShape, Pattern, uniform_shapes
from fllm_backends.torch.weight_matrix import WeightMatrix, materialize


@dataclass(frozen=True, slots=True)
class Linear:
    """``x @ weight.T + bias``; ``weight`` is [out, in]. Before a decoder loads it, it may be in its file."""

    weight: Tensor | WeightMatrix
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.tensor, self.bias)

    @property
    def tensor(self) -> Tensor:
        """The weights, which must be in memory."""
        assert isinstance(self.weight, Tensor), "materialize comes before use"
        return self.weight


@dataclass(frozen=True, slots=True)
class RMSNorm:
    """Divides by the root mean square of the last dimension, then multiplies by ``weight``."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one decoder layer. Queries, keys and values are one matrix, gate and up another."""

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

    embedding: Tensor | WeightMatrix
    layers: Iterable[Layer]
    """The layers. They may be read from the disk during the iteration."""
    norm: RMSNorm
    head: Tensor | WeightMatrix
    """Output head: [vocabulary, hidden]. It is the embedding itself if the two are tied."""


class Decoder(Protocol):
    """Computes hidden states from token ids, and logits from hidden states."""

    device: torch.device
    vocab_size: int
    kv_shapes: tuple[KVShape, ...]
    """What each layer of the KV cache stores of a token."""
    cache_dtype: torch.dtype
    """Type of the KV cache."""
    block_multiple: int
    """The block size of the KV cache must be a multiple of this number of tokens."""

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Return the hidden states of [tokens] ids, as `logits` takes them: [tokens, hidden].

        Store their keys and values in the cache.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Return [rows, vocabulary] float32 logits of [rows, hidden] states."""
        ...

    def greedy_tokens(self, hidden: Tensor, allowed: Tensor | None = None) -> list[int]:
        """Return the most likely allowed token of each row of [rows, hidden]; of equals, the first.

        ``allowed`` is [rows, words] with a bit for each token; ``None`` allows all.
        """
        ...


class CausalLM:
    """A decoder in torch operations, in the dtype of the weights."""

    block_multiple = 1

    def __init__(self, architecture: Architecture, weights: Weights) -> None:
        self.architecture = architecture
        self.vocab_size = architecture.vocab_size
        self.kv_shapes = uniform_shapes(architecture)
        like = weights.norm.weight
        self.device = like.device
        self.cache_dtype = like.dtype
        self._norm = weights.norm
        self._embedding = materialize(weights.embedding, like)
        tied = weights.head is weights.embedding
        self._head = self._embedding if tied else materialize(weights.head, like)
        self._layers = [materialize(layer, like) for layer in weights.layers]
        self._frequencies = rotary.frequencies(architecture.rope, architecture.head_dim).to(self.device)
        self._amplitude = rotary.amplitude(architecture.rope)
        self._patterns = [Pattern(window=kind.window) for kind in architecture.layers]

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Return the hidden states of the new tokens, [tokens, hidden]; store their KV in the cache."""
        x = F.embedding(token_ids.to(self.device), self._embedding)
        cosine, sine = rotary.rotations(batch.positions, self._frequencies, self._amplitude)
        rotation = cosine.to(x.dtype), sine.to(x.dtype)
        for index, layer in enumerate(self._layers):
            x = x + self._attend(index, layer, layer.input_norm(x), rotation, batch, cache)
            x = x + _feed_forward(layer, layer.post_attention_norm(x))
        return self._norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return [rows, vocabulary] float32 logits of [rows, hidden] states."""
        return F.linear(hidden, self._head).float()

    def greedy_tokens(self, hidden: Tensor, allowed: Tensor | None = None) -> list[int]:
        """Return the most likely token of each row of [rows, hidden]."""
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
        if a.layers[index].rotary:
            query, key = rotary.rotate(query, *rotation), rotary.rotate(key, *rotation)
        cache.write(index, batch.slots, key, value)
        return layer.output(batch.attend(query, *cache.layer(index), self._patterns[index]).flatten(1))


def _feed_forward(layer: Layer, x: Tensor) -> Tensor:
    gate, up = layer.gate_up(x).chunk(2, dim=-1)
    return layer.down(F.silu(gate) * up)
