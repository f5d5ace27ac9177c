"""Pack the layers of a model for the kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor

from fllm_backends.checkpoints.architecture import Architecture, ExpertShape
from fllm_backends.torch.fused.arrays import ExpertWeights, LayerWeights, PackedMatrices
from fllm_backends.torch.fused.formats import GROUP, PANEL
from fllm_backends.torch.fused.matmul import PLANES_8_BIT, PLANES_15_BIT, packed_matrices
from fllm_backends.torch.fused.packing import Floats, PackedMatrix, pack
from fllm_backends.torch.fused.padding import Places, place, round_up, spread, take, take_norm
from fllm_backends.torch.fused.panel_memory import PanelMemory
from fllm_backends.torch.model import Experts, Layer, Linear, Mlp, RMSNorm
from fllm_backends.torch.ranks import ALONE, Ranks, head_parts, part
from fllm_backends.torch.weight_matrix import TensorMatrix, WeightMatrix, as_matrix


class PaddedSizes(NamedTuple):
    """The sizes of a model as the kernels compute with them."""

    hidden: int
    inner: int
    expert_inner: int
    head_dim: int
    vocabulary: int


def padded(a: Architecture) -> Architecture:
    """Return a model of padded sizes."""
    sizes = padded_sizes(a)
    experts = a.experts and replace(a.experts, intermediate_size=sizes.expert_inner)
    return replace(
        a,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.inner,
        head_dim=sizes.head_dim,
        vocab_size=sizes.vocabulary,
        experts=experts,
    )


def padded_sizes(a: Architecture) -> PaddedSizes:
    """Return the sizes of a model."""
    return PaddedSizes(
        hidden=round_up(a.hidden_size),
        inner=round_up(a.intermediate_size),
        expert_inner=round_up(a.experts.intermediate_size) if a.experts else GROUP,
        head_dim=round_up(a.head_dim),
        vocabulary=round_up(a.vocab_size, PANEL),
    )


class OwnParts(NamedTuple):
    """What a rank computes of the padded sizes of a model."""

    heads: range
    kv_heads: range
    hidden: range
    """Outputs of attention and of MLPs."""
    inner: range
    expert_inner: range
    vocabulary: range


def own_parts(a: Architecture, rank: int, size: int) -> OwnParts:
    """Return the parts of a rank."""
    sizes = padded_sizes(a)
    heads, kv_heads = head_parts(a, rank, size)
    others = (sizes.hidden, sizes.inner, sizes.expert_inner, sizes.vocabulary)
    return OwnParts(heads, kv_heads, *(part(each, rank, size) for each in others))


def can_divide(a: Architecture, size: int) -> bool:
    """Return whether each of ``size`` ranks can have parts that the kernels compute."""
    parts = own_parts(a, 0, size)
    groups = (parts.hidden, parts.inner, parts.expert_inner) if a.experts else (parts.hidden, parts.inner)
    whole = all(len(each) and len(each) % GROUP == 0 for each in groups)
    return whole and len(parts.vocabulary) % PANEL == 0 and a.qk_norm != "full"


def shared_experts(shape: ExpertShape) -> int:
    """Return the number of experts of the others' size that make up the shared one."""
    return -(-shape.shared_intermediate_size // shape.intermediate_size)


class LayerPacker:
    """Packs a model. It keeps the packed matrices, since the kernels hold their addresses."""

    def __init__(self, a: Architecture, threads: int, ranks: Ranks = ALONE) -> None:
        """Pack a model, or a rank's part of the rows of each matrix. All columns are kept."""
        self._a = a
        self._threads = threads
        self.packed: list[PackedMatrix] = []
        self._memory = PanelMemory()
        self.sizes = sizes = padded_sizes(a)
        self.own = own = own_parts(a, ranks.rank, ranks.size)
        self._hidden = spread(1, a.hidden_size, sizes.hidden)
        self._head = spread(1, a.head_dim, sizes.head_dim, _rotation_order(a))
        self._heads = spread(a.heads, a.head_dim, sizes.head_dim)
        heads, kv_heads = (
            slice(each.start * sizes.head_dim, each.stop * sizes.head_dim)
            for each in (own.heads, own.kv_heads)
        )
        order = _rotation_order(a)
        self._queries = spread(a.heads, a.head_dim, sizes.head_dim, order)[heads]
        self._keys = spread(a.kv_heads, a.head_dim, sizes.head_dim, order)[kv_heads]
        values = spread(a.kv_heads, a.head_dim, sizes.head_dim)[kv_heads]
        self._qkv = _consecutive(
            (self._queries, a.heads * a.head_dim),
            (self._keys, a.kv_heads * a.head_dim),
            (values, a.kv_heads * a.head_dim),
        )

    def pack_head(self, weight: Tensor | WeightMatrix) -> PackedMatrix:
        """Pack the output head or the embedding: [vocabulary, hidden]. No padded token is ever likely."""
        rows = _take(spread(1, self._a.vocab_size, self.sizes.vocabulary), self.own.vocabulary)
        bias = np.where(rows < 0, np.float32(-np.inf), np.float32(0))
        return pack(place(as_matrix(weight), rows, self._hidden), bias, self._memory)

    def matrices(self, matrices: list[PackedMatrix], planes: int) -> PackedMatrices:
        """Return one matrix of each layer, for activations of ``planes`` bytes; keep the packed matrices."""
        self.packed += matrices
        return packed_matrices(matrices, planes)

    def pack_norm(self, norm: RMSNorm | None) -> Floats:
        """Return the weight of a norm of the hidden states."""
        return _norm(norm, self._hidden)

    def places(self) -> dict[str, tuple[Places, Places]]:
        """Return the places of the rows and the columns of each matrix of a layer without experts."""
        size = self._a.intermediate_size
        inner = spread(1, size, self.sizes.inner)
        return {
            "qkv": (self._qkv, self._hidden),
            "output": (self._hidden, self._heads),
            "gate_up": (_consecutive((inner, size), (inner, size)), self._hidden),
            "down": (self._hidden, inner),
        }

    def pack_layers(self, layers: Iterable[Layer]) -> LayerWeights:
        """Pack all layers, one after the other."""
        norms: list[list[Floats]] = []
        matrices: list[list[PackedMatrix]] = []
        routers: list[Floats] = []
        sparse: list[bool] = []
        with ThreadPoolExecutor(self._threads) as pool:
            for layer in layers:
                norms.append(self._norms(layer))
                sparse.append(isinstance(layer.mlp, Experts))
                if isinstance(layer.mlp, Experts):
                    routers.append(self._router(layer.mlp))
                qkv, output, *mlps = pool.map(lambda part: self._pack(*part), self._parts(layer))
                matrices.append([qkv, output, _concatenate(mlps[::2]), _concatenate(mlps[1::2])])
        qkvs, outputs, gate_ups, downs = ([*kind] for kind in zip(*matrices, strict=True))
        input_norm, output_norm, mlp_norm, mlp_output_norm, q_norm, k_norm = (
            np.stack(kind) for kind in zip(*norms, strict=True)
        )
        dense = [not each for each in sparse]
        return LayerWeights(
            input_norm=input_norm,
            output_norm=output_norm,
            mlp_norm=mlp_norm,
            mlp_output_norm=mlp_output_norm,
            q_norm=q_norm,
            k_norm=k_norm,
            qkv=self.matrices(qkvs, PLANES_15_BIT),
            output=self.matrices(outputs, PLANES_8_BIT),
            gate_up=self.matrices(_selected(gate_ups, dense), PLANES_15_BIT),
            down=self.matrices(_selected(downs, dense), PLANES_8_BIT),
            experts=ExpertWeights(
                router_index=np.cumsum(sparse) - 1,
                router=np.stack(routers) if routers else np.empty((0, 0, 0), np.float32),
                gate_up=self.matrices(_selected(gate_ups, sparse), PLANES_15_BIT),
                down=self.matrices(_selected(downs, sparse), PLANES_8_BIT),
            ),
            sparse=np.array(sparse),
            window=np.array([kind.window or 0 for kind in self._a.layers]),
            rope=np.array([kind.rope if kind.rotary else -1 for kind in self._a.layers]),
        )

    def _norms(self, layer: Layer) -> list[Floats]:
        whole = self._a.qk_norm == "full"
        hidden = [layer.input_norm, layer.output_norm, layer.mlp_norm, layer.mlp_output_norm]
        return [
            *map(self.pack_norm, hidden),
            _norm(layer.q_norm, self._queries if whole else self._head),
            _norm(layer.k_norm, self._keys if whole else self._head),
        ]

    def _router(self, mlp: Experts) -> Floats:
        """Return the router, with the gate of the shared experts as its last row."""
        matrices = [as_matrix(linear.weight) for linear in (mlp.router, mlp.shared_gate) if linear]
        rows = [matrix.rows(0, matrix.shape[0]) for matrix in matrices]
        if mlp.shared_gate is None:
            rows.append(rows[0].new_zeros(1, self._a.hidden_size))
        return _array(take(torch.cat(rows), self._hidden, 1))

    def _pack(self, linear: Linear, rows: Places, columns: Places) -> PackedMatrix:
        bias = None if linear.bias is None else _array(take(linear.bias, rows))
        return pack(place(as_matrix(linear.weight), rows, columns), bias, self._memory)

    def _parts(self, layer: Layer) -> Iterator[_Part]:
        """Yield the matrices of a layer: queries, keys and values, output, gates and downs in turn."""
        yield layer.qkv, self._qkv, self._hidden
        yield layer.output, _take(self._hidden, self.own.hidden), self._heads
        if isinstance(layer.mlp, Mlp):
            inner = spread(1, self._a.intermediate_size, self.sizes.inner)
            yield from self._mlp(layer.mlp, inner, self.own.inner)
            return
        assert self._a.experts, "a layer with experts needs their shape"
        size, padded = self._a.experts.intermediate_size, self.sizes.expert_inner
        for mlp in layer.mlp.experts:
            yield from self._mlp(mlp, spread(1, size, padded), self.own.expert_inner)
        if layer.mlp.shared:
            total = self._a.experts.shared_intermediate_size
            for start in range(0, total, size):
                inner = spread(1, min(size, total - start), padded)
                inner = np.where(inner < 0, -1, inner + start)
                yield from self._mlp(layer.mlp.shared, inner, self.own.expert_inner)

    def _mlp(self, mlp: Mlp, inner: Places, own: range) -> Iterator[_Part]:
        """Yield the matrices of an MLP, or of the part of one that computes these inner values."""
        size = mlp.down.weight.shape[1]
        yield mlp.gate_up, _consecutive(*2 * [(_take(inner, own), size)]), self._hidden
        yield mlp.down, _take(self._hidden, self.own.hidden), inner


_Part: TypeAlias = tuple[Linear, Places, Places]
"""A matrix, and the places of its rows and columns."""


def _rotation_order(a: Architecture) -> Places:
    """Return the order of a head's dimensions in which pairs are half of ``rotary_dim`` apart."""
    order = np.arange(a.head_dim)
    if a.rope_interleaved:
        order[: a.rotary_dim] = np.concatenate([order[: a.rotary_dim : 2], order[1 : a.rotary_dim : 2]])
    return order


def _consecutive(*parts: tuple[Places, int]) -> Places:
    """Return the places of parts that follow each other, with the number of rows of each."""
    places, start = [], 0
    for own, rows in parts:
        places.append(np.where(own < 0, -1, own + start))
        start += rows
    return np.concatenate(places)


def _take(places: Places, own: range) -> Places:
    return places[own.start : own.stop]


def _concatenate(matrices: list[PackedMatrix]) -> PackedMatrix:
    """Return the matrices of all experts as one, with the bias of one of them: they have none."""
    return PackedMatrix(tuple(part for matrix in matrices for part in matrix.parts), matrices[0].bias)


def _selected(matrices: list[PackedMatrix], selected: list[bool]) -> list[PackedMatrix]:
    """Replace what is not selected, so that all have the same shape. Nothing reads the replacements."""
    other = next((each for each, use in zip(matrices, selected, strict=True) if use), _empty())
    return [each if use else other for each, use in zip(matrices, selected, strict=True)]


def _empty() -> PackedMatrix:
    return pack(TensorMatrix(torch.zeros(PANEL, GROUP)))


def _norm(norm: RMSNorm | None, places: Places) -> Floats:
    if norm is None:
        return np.empty(0, np.float32)
    weight = norm.weight.float() + norm.offset if norm.offset else norm.weight
    # A copy, so that the checkpoint does not stay mapped.
    return _array(take_norm(weight, places)).copy()


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().float().numpy()
    return array
