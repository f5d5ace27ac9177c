"""Decoders in torch operations, on one flat batch of tokens without padding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from fllm_backends.checkpoints.architecture import Activation, Architecture, ExpertShape
from fllm_backends.torch import logit_masks, rotary
from fllm_backends.torch.attention import AttentionBatch, KVCache, KVShape, Pattern, uniform_shapes
from fllm_backends.torch.ranks import ALONE, Ranks, part
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
    """Divides by the root mean square of the last dimension, then multiplies by ``weight + offset``."""

    weight: Tensor
    eps: float
    offset: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        if not self.offset:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float() + self.offset, self.eps).to(
            x.dtype
        )


@dataclass(frozen=True, slots=True)
class Mlp:
    """``down(activation(gate) * up)``; gate and up are one matrix."""

    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts; see `ExpertShape`."""

    router: Linear
    experts: tuple[Mlp, ...]
    """The experts in order. Their weights may be views of one tensor."""
    shared: Mlp | None = None
    """An expert that computes every token."""
    shared_gate: Linear | None = None
    """Gate of the shared expert: [1, hidden]."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one decoder layer. Queries, keys and values are one matrix.

    ``x += output_norm(attention(input_norm(x)))``, then ``x += mlp_output_norm(mlp(mlp_norm(x)))``.
    A norm that is ``None`` changes nothing.
    """

    input_norm: RMSNorm | None
    qkv: Linear
    output: Linear
    mlp_norm: RMSNorm | None
    mlp: Mlp | Experts
    q_norm: RMSNorm | None = None
    """Norm of the queries: [head_dim], or [heads * head_dim] if all heads are normalised together."""
    k_norm: RMSNorm | None = None
    output_norm: RMSNorm | None = None
    """Norm of the attention's output, before it is added to the hidden states."""
    mlp_output_norm: RMSNorm | None = None
    """Norm of the MLP's output, before it is added to the hidden states."""


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


@runtime_checkable
class StatefulDecoder(Decoder, Protocol):
    """A decoder whose layers may keep a state for each sequence, by `Row.slot`."""

    state_size: int
    """Number of bytes of the state of one sequence; 0 if no layer keeps one."""

    def allocate_states(self, slots: int) -> None:
        """Allocate the states of this number of sequences."""
        ...


@runtime_checkable
class StepDecoder(Decoder, Protocol):
    """A decoder that computes what follows each token of a batch in one call."""

    def next_tokens(
        self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache, allowed: Tensor | None = None
    ) -> list[int]:
        """Return the `greedy_tokens` of `forward`."""
        ...

    def next_logits(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Return the `logits` of `forward`."""
        ...


class CausalLM:
    """A decoder in torch operations, in the dtype of the weights.

    With several ``ranks``, the architecture and the weights are a rank's part, see `division`.
    """

    block_multiple = 1

    def __init__(self, architecture: Architecture, weights: Weights, ranks: Ranks = ALONE) -> None:
        self.architecture = architecture
        self._ranks = ranks
        self._vocabularies = [
            len(part(architecture.vocab_size, rank, ranks.size)) for rank in range(ranks.size)
        ]
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
        self._ropes = [
            rotary.RotaryEmbedding(rope, architecture.rotary_dim, self.device) for rope in architecture.ropes
        ]
        self._patterns = [
            Pattern(
                window=kind.window,
                scale=architecture.attention_scale,
                softcap=architecture.attention_softcap,
            )
            for kind in architecture.layers
        ]
        self._activation = _ACTIVATIONS[architecture.activation]

    def forward(self, token_ids: Tensor, batch: AttentionBatch, cache: KVCache) -> Tensor:
        """Return the hidden states of the new tokens, [tokens, hidden]; store their KV in the cache."""
        a = self.architecture
        x = self._embed(token_ids.to(self.device))
        if a.embedding_scale != 1.0:
            x = x * x.new_tensor(a.embedding_scale)
        rotations = [self._rotation(rope, batch, x.dtype) for rope in self._ropes]
        for index, layer in enumerate(self._layers):
            rotation = rotations[a.layers[index].rope]
            attended = self._attend(index, layer, _norm(layer.input_norm, x), rotation, batch, cache)
            x = x + _norm(layer.output_norm, attended) * a.residual_scale
            inner = self._ranks.sum(self._feed_forward(layer.mlp, _norm(layer.mlp_norm, x)))
            x = x + _norm(layer.mlp_output_norm, inner) * a.residual_scale
        return self._norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return [rows, vocabulary] float32 logits of [rows, hidden] states."""
        logits = self._ranks.concatenate(self._project(hidden), self._vocabularies)
        logits = logits * self.architecture.logit_scale
        softcap = self.architecture.logit_softcap
        return (logits if softcap is None else torch.tanh(logits / softcap) * softcap).float()

    def greedy_tokens(self, hidden: Tensor, allowed: Tensor | None = None) -> list[int]:
        """Return the most likely token of each row of [rows, hidden]."""
        tokens: list[int] = logit_masks.apply(allowed, self.logits(hidden)).argmax(-1).tolist()
        return tokens

    def _embed(self, token_ids: Tensor) -> Tensor:
        if self._ranks.size == 1:
            return F.embedding(token_ids, self._embedding)
        own = token_ids - part(self.vocab_size, self._ranks.rank, self._ranks.size).start
        is_own = (own >= 0) & (own < len(self._embedding))
        embedded = F.embedding(own.clamp(0, len(self._embedding) - 1), self._embedding)
        return self._ranks.sum(embedded * is_own[:, None])

    def _project(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self._head)

    def wrap_linears(self, wrap: Callable[[int, str, Linear], Linear]) -> None:
        """Replace the linear layers by ``wrap(index of the layer, name, linear)``, those of experts excepted.

        The names are qkv, output, gate_up and down.
        """
        for index, layer in enumerate(self._layers):
            mlp = layer.mlp
            if isinstance(mlp, Mlp):
                gate_up, down = wrap(index, "gate_up", mlp.gate_up), wrap(index, "down", mlp.down)
                mlp = Mlp(gate_up, down)
            qkv, output = wrap(index, "qkv", layer.qkv), wrap(index, "output", layer.output)
            self._layers[index] = replace(layer, qkv=qkv, output=output, mlp=mlp)

    def _rotation(
        self, rope: rotary.RotaryEmbedding, batch: AttentionBatch, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        cosine, sine = rope.rotations(batch.positions, batch.sequence_lengths)
        return cosine.to(dtype), sine.to(dtype)

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
        sizes = [a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.head_dim]
        query, key, value = torch.split(layer.qkv(x), sizes, dim=1)
        if a.qk_norm == "full":
            query, key = _norm(layer.q_norm, query), _norm(layer.k_norm, key)
        query, key, value = (part.view(len(x), -1, a.head_dim) for part in (query, key, value))
        if a.qk_norm == "head":
            query, key = _norm(layer.q_norm, query), _norm(layer.k_norm, key)
        if a.layers[index].rotary:
            query = rotary.rotate(query, *rotation, interleaved=a.rope_interleaved)
            key = rotary.rotate(key, *rotation, interleaved=a.rope_interleaved)
        cache.write(index, batch.slots, key, value)
        attended = batch.attend(query, *cache.layer(index), self._patterns[index])
        return self._ranks.sum(layer.output(attended.flatten(1)))

    def _feed_forward(self, mlp: Mlp | Experts, x: Tensor) -> Tensor:
        if isinstance(mlp, Mlp):
            gate, up = mlp.gate_up(x).chunk(2, dim=-1)
            return mlp.down(self._activation(gate) * up)
        assert self.architecture.experts, "a layer with experts needs their shape"
        weights, chosen = choose_experts(mlp.router(x), self.architecture.experts)
        result = torch.zeros_like(x)
        for expert in torch.unique(chosen).tolist():
            tokens, place = torch.where(chosen == expert)
            out = self._feed_forward(mlp.experts[expert], x[tokens])
            result.index_add_(0, tokens, out * weights[tokens, place, None])
        if mlp.shared and mlp.shared_gate:
            result += torch.sigmoid(mlp.shared_gate(x)) * self._feed_forward(mlp.shared, x)
        return result


def choose_experts(logits: Tensor, shape: ExpertShape) -> tuple[Tensor, Tensor]:
    """Return the weights and the indices of the experts of [tokens, experts] logits of a router.

    Both are [tokens, experts per token].
    """
    weights, chosen = logits.softmax(-1, dtype=torch.float32).topk(shape.per_token)
    if shape.normalized:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights.to(logits.dtype), chosen


def _norm(norm: RMSNorm | None, x: Tensor) -> Tensor:
    return norm(x) if norm else x


_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}
