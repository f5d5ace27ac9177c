"""A decoder in torch operations whose matrices are packed, for what the fused layers do not support."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.fused.linear import PackedProduct
from fllm_backends.torch.fused.matmul import PLANES_8_BIT, PLANES_15_BIT
from fllm_backends.torch.model import CausalLM, Experts, Layer, Linear, Mlp, Weights
from fllm_backends.torch.ranks import ALONE, Ranks


@dataclass(frozen=True, slots=True)
class PackedMatrixLinear(Linear):
    """A linear layer on a packed matrix. Its ``weight`` is empty."""

    product: PackedProduct | None = None

    def __call__(self, x: Tensor) -> Tensor:
        assert self.product
        return self.product.multiply(x)


class PackedLM(CausalLM):
    """`CausalLM` with packed matrices of 4 to 8 bits, as in `FusedLM`. Other operations are in float32."""

    def __init__(
        self, a: Architecture, weights: Weights, threads: KernelThreads, ranks: Ranks = ALONE
    ) -> None:
        self._threads = threads
        self._packed_head = PackedProduct(weights.head, None, self._threads)
        layers = _PackedLayers(weights, self._threads)
        # The head of the base class is not used.
        super().__init__(a, replace(weights, layers=layers, head=weights.embedding), ranks)

    def compile(self) -> None:
        """Compile the kernels, or load those that an earlier start has compiled."""
        self._project(torch.zeros(1, self.architecture.hidden_size))

    def _project(self, hidden: Tensor) -> Tensor:
        return self._packed_head.multiply(hidden)


class _PackedLayers:
    """Packs each layer when it is iterated."""

    def __init__(self, weights: Weights, threads: KernelThreads) -> None:
        self._weights = weights
        self._threads = threads

    def __iter__(self) -> Iterator[Layer]:
        for layer in self._weights.layers:
            yield replace(
                layer,
                qkv=self._pack(layer.qkv, PLANES_15_BIT),
                output=self._pack(layer.output, PLANES_8_BIT),
                mlp=self._pack_mlp(layer.mlp),
            )

    def _pack_mlp(self, mlp: Mlp | Experts) -> Mlp | Experts:
        if isinstance(mlp, Mlp):
            return self._pack_dense(mlp)
        experts = tuple(self._pack_dense(each) for each in mlp.experts)
        return replace(mlp, experts=experts, shared=mlp.shared and self._pack_dense(mlp.shared))

    def _pack_dense(self, mlp: Mlp) -> Mlp:
        return Mlp(self._pack(mlp.gate_up, PLANES_15_BIT), self._pack(mlp.down, PLANES_8_BIT))

    def _pack(self, linear: Linear, planes: int) -> Linear:
        product = PackedProduct(linear.weight, linear.bias, self._threads, planes)
        return PackedMatrixLinear(torch.empty(0), product=product)
