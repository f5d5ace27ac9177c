"""Replace linear layers and experts of a transformers model by products with packed weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.fused.linear import PackedLinear, PackedProduct, expert_jobs
from fllm_backends.torch.fused.matmul import PLANES_8_BIT, PLANES_15_BIT
from fllm_backends.torch.lazy_weights import expert_matrices, matrix_of, read_tensor, stacked
from fllm_backends.torch.weight_matrix import WeightMatrix

EXPERTS = "fllm"
"""Name of `run_experts` in transformers' registry."""
MIN_SIZE = 64
"""Smaller matrices stay as they are: they cost little."""
_ROUTER = re.compile(r".*(Router|Gate|Gating)")
"""Names of the classes of routers. Rounding their weights would let them choose other experts."""
_READ_AS_TENSORS = ("dt_proj",)
"""Names of layers whose weights the classes multiply themselves, as in Mamba 1 and Jamba."""
_AFTER_ATTENTION_OR_GATE = ("o_proj", "out_proj", "down_proj", "c_proj", "dense_4h_to_h", "fc2", "w2", "wo")
"""Names of layers whose input does not come from a norm, and so has no large channels."""


def pack_modules(parts: Iterable[Packable], threads: KernelThreads, on_packed: Callable[[], None]) -> None:
    """Replace linear layers and experts in float32 on a CPU, see `packable`; free their weights.

    Weights that are not read yet are read a few rows at a time, see `LazyTensor`. They are rounded to 8 bits
    unless fewer hold them exactly. ``on_packed`` is called after each matrix.
    """
    ALL_EXPERTS_FUNCTIONS.register(EXPERTS, run_experts)
    with ThreadPoolExecutor(threads.count) as pool:
        for _ in pool.map(lambda part: part.pack(threads), parts):
            on_packed()


class Packable(NamedTuple):
    """A linear layer, or the experts of a layer."""

    module: nn.Module
    pack: Callable[[KernelThreads], None]

    @property
    def is_linear(self) -> bool:
        """Whether it is a linear layer."""
        return isinstance(self.module, nn.Linear | Conv1D)

    @property
    def weights(self) -> list[Tensor]:
        """The matrices."""
        if isinstance(self.module, nn.Linear | Conv1D):
            return [self.module.weight]
        return [each for each in self.module.parameters(recurse=False) if each.ndim > 2]


def packable(model: nn.Module) -> Iterator[Packable]:
    """Yield what can be packed."""
    for module in list(model.modules()):
        if _is_experts(module):
            yield Packable(module, partial(_pack_experts, module))
    for layer in linear_layers(model):
        yield Packable(layer.module, partial(_pack_linear, layer))


class LinearLayer(NamedTuple):
    """A linear layer that can be replaced, and where it is."""

    parent: nn.Module
    name: str
    module: nn.Linear | Conv1D


def linear_layers(model: nn.Module) -> Iterator[LinearLayer]:
    """Yield the linear layers whose matrices are large enough, and which only their own code multiplies."""
    for parent in list(model.modules()):
        if _is_experts(parent) or _ROUTER.fullmatch(type(parent).__name__):
            continue
        for name, child in parent.named_children():
            if name not in _READ_AS_TENSORS and _is_linear(child) and min(child.weight.shape) >= MIN_SIZE:
                yield LinearLayer(parent, name, child)


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear | Conv1D]:
    """Return whether a module computes what its class does: subclasses such as Llama 4's router do more."""
    return type(module).forward in (nn.Linear.forward, Conv1D.forward)


def linear_matrix(linear: nn.Linear | Conv1D) -> WeightMatrix:
    """Return the weights of a layer as a matrix [out, in], which may stay in its file."""
    return matrix_of(linear.weight.T if isinstance(linear, Conv1D) else linear.weight)


def _pack_linear(layer: LinearLayer, threads: KernelThreads) -> None:
    linear = layer.module
    bias = None if linear.bias is None else read_tensor(linear.bias)
    planes = PLANES_8_BIT if layer.name in _AFTER_ATTENTION_OR_GATE else PLANES_15_BIT
    packed = PackedLinear(PackedProduct(linear_matrix(linear), bias, threads, planes))
    setattr(layer.parent, layer.name, packed)


def run_experts(experts: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Run the chosen experts of each token, as transformers' ``ExpertsInterface`` does.

    ``hidden`` is [tokens, hidden], ``chosen`` and ``weights`` are [tokens, experts of a token].
    """
    sorted_experts, order = chosen.flatten().sort(stable=True)
    tokens = order // chosen.shape[1]
    jobs = expert_jobs(sorted_experts.bincount(minlength=experts.num_experts).tolist())
    x = experts.packed_up.multiply_jobs(hidden[tokens], jobs)
    x = experts._apply_gate(x) if experts.has_gate else experts.act_fn(x)
    x = experts.join_outputs(experts.packed_down.multiply_jobs(experts.join_inner(x), jobs))
    if experts.has_post_expert_norm:
        x = experts.post_expert_norm(x)
    x = x * weights.flatten()[order, None]
    return torch.zeros_like(hidden).index_add_(0, tokens, x.to(hidden.dtype))


def _is_experts(module: nn.Module) -> bool:
    names = dict(module.named_parameters(recurse=False))
    return hasattr(module, "has_gate") and "down_proj" in names and names["down_proj"].ndim == 3


def _pack_experts(experts: Any, threads: KernelThreads) -> None:
    up = "gate_up_proj" if experts.has_gate else "up_proj"
    for name, packed, planes in (
        (up, "packed_up", PLANES_15_BIT),
        ("down_proj", "packed_down", PLANES_8_BIT),
    ):
        matrices = expert_matrices(getattr(experts, name), transposed=experts.is_transposed)
        bias = getattr(experts, f"{name}_bias", None)
        bias = None if bias is None else read_tensor(bias)
        setattr(
            experts, packed, PackedProduct(stacked(matrices), bias, threads, planes, experts=len(matrices))
        )
        delattr(experts, name)
    experts.join_inner = experts.join_outputs = _same  # until ranks exchange them
    experts.config._experts_implementation = EXPERTS


def _same(x: Tensor) -> Tensor:
    return x
