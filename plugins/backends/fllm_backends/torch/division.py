"""Cut the weights of our own decoders into the parts of the ranks, as in Megatron-LM (arXiv 1909.08053).

A rank has some of the attention heads with their keys and values, and some columns of each MLP. So a layer
adds up the results of the ranks twice: after the output of attention, and after that of the MLP.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fllm.errors import ConfigError
from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch.fused.padding import Places, place, take
from fllm_backends.torch.model import Experts, Layer, Linear, Mlp, RMSNorm, Weights
from fllm_backends.torch.ranks import Ranks, head_parts, part
from fllm_backends.torch.weight_matrix import WeightMatrix

MAX_RANKS = 64
_LARGE_BLOCKS = ("_K", "IQ", "TQ")
"""Parts of the names of GGUF's types whose blocks have 256 values. Others have 32 or fewer."""


def check_cut(a: Architecture, size: int) -> None:
    """Raise `ConfigError` if the model can't be divided among ``size`` ranks."""
    if _can_cut(a, size):
        return
    sizes = [str(each) for each in range(1, MAX_RANKS + 1) if _can_cut(a, each)]
    raise ConfigError(
        f"--tensor-parallel-size {size}: {a.name} with {a.heads} attention heads, {a.kv_heads} key-value "
        f"heads and MLPs of {min(_inner_sizes(a))} can be divided by {', '.join(sizes)}"
    )


def _can_cut(a: Architecture, size: int) -> bool:
    """Return whether each rank gets a head, all with equally many queries, and a part of each MLP."""
    if size > min(a.heads, *_inner_sizes(a), a.vocab_size) or size > MAX_RANKS:
        return False
    if size <= a.kv_heads:
        return True
    return size % a.kv_heads == 0 and a.heads % size == 0 and a.qk_norm != "full"


def _inner_sizes(a: Architecture) -> list[int]:
    sizes = [a.intermediate_size] if any(not kind.sparse for kind in a.layers) else []
    if a.experts:
        sizes += [a.experts.intermediate_size, a.experts.shared_intermediate_size]
    return [size for size in sizes if size]


def cut_architecture(a: Architecture, ranks: Ranks) -> Architecture:
    """Return the dimensions of the part of a rank. The vocabulary keeps its size."""
    heads, kv_heads = head_parts(a, ranks.rank, ranks.size)
    experts = a.experts and msgspec.structs.replace(
        a.experts,
        intermediate_size=_length(a.experts.intermediate_size, ranks),
        shared_intermediate_size=_length(a.experts.shared_intermediate_size, ranks),
    )
    return msgspec.structs.replace(
        a,
        heads=len(heads),
        kv_heads=len(kv_heads),
        intermediate_size=_length(a.intermediate_size, ranks),
        experts=experts,
    )


def _length(total: int, ranks: Ranks) -> int:
    return len(part(total, ranks.rank, ranks.size))


def cut_weights(a: Architecture, weights: Weights, ranks: Ranks) -> Weights:
    """Return a rank's part of the weights of ``a``. Each layer is cut when it is iterated."""
    vocabulary = part(a.vocab_size, ranks.rank, ranks.size)
    embedding = _take_rows(weights.embedding, vocabulary)
    tied = weights.head is weights.embedding
    head = embedding if tied else _take_rows(weights.head, vocabulary)
    return replace(weights, embedding=embedding, head=head, layers=_CutLayers(a, weights, ranks))


class _CutLayers:
    def __init__(self, a: Architecture, weights: Weights, ranks: Ranks) -> None:
        self._a = a
        self._weights = weights
        self._ranks = ranks
        heads, kv_heads = head_parts(a, ranks.rank, ranks.size)
        self._queries, self._keys = (
            range(each.start * a.head_dim, each.stop * a.head_dim) for each in (heads, kv_heads)
        )

    def __iter__(self) -> Iterator[Layer]:
        for layer in self._weights.layers:
            yield replace(
                layer,
                qkv=_cut_rows(layer.qkv, self._qkv()),
                output=self._cut_columns(layer.output, self._queries),
                mlp=self._experts(layer.mlp) if isinstance(layer.mlp, Experts) else self._mlp(layer.mlp),
                q_norm=self._norm(layer.q_norm, self._queries),
                k_norm=self._norm(layer.k_norm, self._keys),
            )

    def _qkv(self) -> list[range]:
        a = self._a
        keys, values = a.heads * a.head_dim, (a.heads + a.kv_heads) * a.head_dim
        return [self._queries, _shifted(self._keys, keys), _shifted(self._keys, values)]

    def _mlp(self, mlp: Mlp) -> Mlp:
        size = mlp.down.weight.shape[1]
        own = part(size, self._ranks.rank, self._ranks.size)
        return Mlp(_cut_rows(mlp.gate_up, [own, _shifted(own, size)]), self._cut_columns(mlp.down, own))

    def _experts(self, experts: Experts) -> Experts:
        return replace(
            experts,
            experts=tuple(self._mlp(each) for each in experts.experts),
            shared=experts.shared and self._mlp(experts.shared),
        )

    def _cut_columns(self, linear: Linear, columns: range) -> Linear:
        """Return some inputs of a linear layer. Only rank 0 adds the bias, since the results are added up."""
        weight = linear.weight
        cut = _take_columns(weight, columns)
        return Linear(cut, linear.bias if self._ranks.rank == 0 else None)

    def _norm(self, norm: RMSNorm | None, places: range) -> RMSNorm | None:
        if norm is None or self._a.qk_norm != "full":
            return norm
        weight = norm.weight[places.start : places.stop]
        return SplitRMSNorm(weight, norm.eps, norm.offset, total=len(norm.weight), ranks=self._ranks)


@dataclass(frozen=True, slots=True)
class SplitRMSNorm(RMSNorm):
    """An `RMSNorm` over all heads, of which this rank has some."""

    total: int = 0
    """Size of the last dimension of all ranks together."""
    ranks: Ranks | None = None

    def __call__(self, x: Tensor) -> Tensor:
        assert self.ranks
        squares = self.ranks.sum(x.float().square().sum(-1, keepdim=True))
        normalized = x.float() * torch.rsqrt(squares / self.total + self.eps)
        return (normalized * (self.weight.float() + self.offset)).to(x.dtype)


class ColumnRange:
    """Consecutive columns of a matrix, as a `WeightMatrix`. They keep their quantization if they can."""

    def __init__(self, matrix: WeightMatrix, columns: range) -> None:
        self._matrix = matrix
        self._columns = columns

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self._matrix.shape[0], len(self._columns)

    @property
    def gguf_type(self) -> str | None:
        """Quantization of the rows; ``None`` if the range does not begin and end between two blocks."""
        name, columns = self._matrix.gguf_type, self._columns
        if name is None:
            return None
        block = 256 if any(each in name for each in _LARGE_BLOCKS) and name != "IQ4_NL" else 32
        return None if columns.start % block or columns.stop % block else name

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows as float32."""
        return self._matrix.rows(start, stop)[:, self._columns.start : self._columns.stop]

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of rows."""
        blocks = self._matrix.blocks(start, stop)
        first, last = (
            edge * blocks.shape[1] // self._matrix.shape[1]
            for edge in (self._columns.start, self._columns.stop)
        )
        return np.ascontiguousarray(blocks[:, first:last])


def _cut_rows(linear: Linear, rows: list[range]) -> Linear:
    places = np.concatenate([np.arange(each.start, each.stop) for each in rows])
    bias = None if linear.bias is None else take(linear.bias, places)
    return Linear(_take_places(linear.weight, places), bias)


def _take_rows(weight: Tensor | WeightMatrix, rows: range) -> Tensor | WeightMatrix:
    if isinstance(weight, Tensor):
        return weight[rows.start : rows.stop]
    return _take_places(weight, np.arange(rows.start, rows.stop))


def _take_places(weight: Tensor | WeightMatrix, rows: Places) -> Tensor | WeightMatrix:
    if isinstance(weight, Tensor):
        return take(weight, rows)
    return place(weight, rows, np.arange(weight.shape[1]))


def _take_columns(weight: Tensor | WeightMatrix, columns: range) -> Tensor | WeightMatrix:
    if isinstance(weight, Tensor):
        return weight[:, columns.start : columns.stop].contiguous()
    return ColumnRange(weight, columns)


def _shifted(places: range, by: int) -> range:
    return range(places.start + by, places.stop + by)
