"""A decoder of the Llama architecture: token ids to hidden states to logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fllm import ModelError
from fllm.batching import Row
from fllm_numpy.cache import KVCache
from fllm_numpy.gguf_file import Array, GgufFile


@dataclass(frozen=True)
class Layer:
    """The weights of one layer. Matrices are [out, in]; ``qkv`` and ``gate_up`` are concatenated ones."""

    attention_norm: Array
    qkv: Array
    output: Array
    feed_forward_norm: Array
    gate_up: Array
    down: Array


class Llama:
    """The weights of the model, and its forward pass."""

    def __init__(self, file: GgufFile, progress: Callable[[int, int], None]) -> None:
        scaling = file.of_model("rope.scaling.type", "none")
        if file.architecture != "llama" or scaling != "none":
            raise ModelError(
                f"the numpy device does not support {file.architecture!r} with rope scaling {scaling!r}"
            )
        self.hidden = file.of_model("embedding_length")
        self.heads = file.of_model("attention.head_count")
        self.kv_heads = file.of_model("attention.head_count_kv", self.heads)
        self.head_dim = file.of_model("attention.key_length", self.hidden // self.heads)
        self.layer_count = file.of_model("block_count")
        self._eps = np.float32(file.of_model("attention.layer_norm_rms_epsilon"))
        pairs = np.arange(0, self.head_dim, 2) / self.head_dim
        self._frequencies = file.of_model("rope.freq_base", 10000.0) ** -pairs
        self._embedding = file.take("token_embd.weight")
        self._layers = []
        for index in range(self.layer_count):
            progress(index, self.layer_count)
            self._layers.append(_layer(file, index))
        self._norm = file.take("output_norm.weight")
        self._head = file.take("output.weight") if file.has("output.weight") else self._embedding
        file.check_all_taken()

    @property
    def vocab_size(self) -> int:
        """Number of logits per token."""
        return len(self._head)

    def forward(self, batch: Sequence[Row], cache: KVCache) -> Array:
        """Return the hidden states of all new tokens, [tokens, hidden]. Write their KV to the cache."""
        ids = np.concatenate([row.token_ids[row.start : row.start + row.count] for row in batch])
        positions = np.concatenate([np.arange(row.start, row.start + row.count) for row in batch])
        rotation = np.exp(1j * positions[:, None, None] * self._frequencies).astype(np.complex64)
        x = self._embedding[ids]
        for index, layer in enumerate(self._layers):
            x += self._attend(index, self._rms_norm(x, layer.attention_norm), rotation, batch, cache)
            x += _feed_forward(layer, self._rms_norm(x, layer.feed_forward_norm))
        return self._rms_norm(x, self._norm)

    def logits(self, hidden: Array) -> Array:
        """Return the logits, [rows, vocabulary], of hidden states, [rows, hidden]."""
        logits: Array = hidden @ self._head.T
        return logits

    def _attend(
        self, index: int, x: Array, rotation: NDArray[np.complex64], batch: Sequence[Row], cache: KVCache
    ) -> Array:
        layer, ends = self._layers[index], np.cumsum([row.count for row in batch])[:-1]
        heads = (x @ layer.qkv.T).reshape(len(x), -1, self.head_dim)
        query, key, value = np.split(heads, [self.heads, self.heads + self.kv_heads], axis=1)
        cache.write(index, batch, _rotate(key, rotation), value)  # of all rows, before any row reads
        parts = zip(batch, np.split(_rotate(query, rotation), ends), strict=True)
        attended = np.concatenate([cache.attend(index, row, part) for row, part in parts])
        result: Array = attended.reshape(len(x), -1) @ layer.output.T
        return result

    def _rms_norm(self, x: Array, weight: Array) -> Array:
        scale: Array = np.sqrt((x * x).mean(-1, keepdims=True) + self._eps)
        return x / scale * weight


def _layer(file: GgufFile, index: int) -> Layer:
    def take(*names: str) -> Array:
        return np.concatenate([file.take(f"blk.{index}.{name}.weight") for name in names])

    return Layer(
        attention_norm=take("attn_norm"),
        qkv=take("attn_q", "attn_k", "attn_v"),
        output=take("attn_output"),
        feed_forward_norm=take("ffn_norm"),
        gate_up=take("ffn_gate", "ffn_up"),
        down=take("ffn_down"),
    )


def _rotate(heads: Array, rotation: NDArray[np.complex64]) -> Array:
    """Apply rotary embeddings. GGUF stores the two values of a pair next to each other: a complex number."""
    return (heads.view(np.complex64) * rotation).view(np.float32)


def _feed_forward(layer: Layer, x: Array) -> Array:
    both: Array = x @ layer.gate_up.T
    gate, up = np.split(both, 2, axis=-1)
    sigmoid: Array = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * gate))  # this form does not overflow
    gated: Array = gate * sigmoid * up
    result: Array = gated @ layer.down.T
    return result
