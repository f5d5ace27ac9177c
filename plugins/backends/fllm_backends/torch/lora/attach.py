"""Let the linear layers of a decoder apply LoRA adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fllm.batching.runner import Row
from fllm.errors import ConfigError
from fllm.interfaces import NO_ADAPTERS
from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch.lora.adapters import Adapter, Key, LoraAdapters, LoraTarget
from fllm_backends.torch.model import CausalLM, Decoder, Linear


@runtime_checkable
class HasModules(Protocol):
    """A decoder that consists of modules of torch."""

    device: torch.device
    adapters: LoraAdapters | None
    """It calls `LoraAdapters.select` for the rows of each of its passes."""

    def decoder_modules(self) -> Mapping[str, nn.Module]:
        """Return the modules of the decoder by their names in the whole model."""
        ...


class LowRankStore(Protocol):
    """The adapters of a decoder that chooses those of each of its passes itself."""

    def add(self, adapter_id: int, adapter: Adapter) -> None:
        """Make an adapter available."""
        ...

    def remove(self, adapter_id: int) -> None:
        """Free an adapter."""
        ...


@runtime_checkable
class HasLowRank(Protocol):
    """A decoder on fused layers, which add the products of adapters."""

    architecture: Architecture
    device: torch.device
    low_rank: LowRankStore


@runtime_checkable
class _HasFeatures(Protocol):
    """A linear layer: that of torch, or what replaces it."""

    in_features: int
    out_features: int


@runtime_checkable
class _Conv1D(Protocol):
    """The linear layer of GPT-2: `transformers.pytorch_utils.Conv1D`."""

    nf: int
    nx: int


@dataclass(frozen=True, slots=True)
class LoraLinear(Linear):
    """A linear layer, with what the adapters of the current batch add."""

    inner: Linear | None = None
    key: Key = (0, "")
    adapters: LoraAdapters | None = None

    def __call__(self, x: Tensor) -> Tensor:
        assert self.inner
        assert self.adapters
        return self.adapters.apply(self.key, x, self.inner(x))


class FusedAdapters(LoraAdapters):
    """The adapters of a decoder on fused layers."""

    def __init__(self, decoder: HasLowRank) -> None:
        super().__init__(lora_targets(decoder.architecture), decoder.device)
        self._store = decoder.low_rank

    def add(self, adapter_id: int, adapter: Adapter) -> None:
        """Make an adapter available."""
        self._store.add(adapter_id, adapter)

    def remove(self, adapter_id: int) -> None:
        """Free an adapter."""
        self._store.remove(adapter_id)

    def select(self, rows: Sequence[Row]) -> None:
        """Do nothing: the decoder selects the adapters of its rows."""


def attach_lora(decoder: Decoder) -> LoraAdapters:
    """Let the linear layers of a decoder apply adapters. Return those, none at first.

    Raise `ConfigError` if the decoder can't apply any.
    """
    if isinstance(decoder, CausalLM):
        return _attach_to_matrices(decoder)
    if isinstance(decoder, HasLowRank):
        return FusedAdapters(decoder)
    if isinstance(decoder, HasModules):
        decoder.adapters = _attach_to_modules(decoder)
        return decoder.adapters
    raise ConfigError(f"--enable-lora, --lora-modules: {NO_ADAPTERS} to this model on this device")


def _attach_to_matrices(decoder: CausalLM) -> LoraAdapters:
    adapters = LoraAdapters(lora_targets(decoder.architecture), decoder.device)
    decoder.wrap_linears(
        lambda index, name, linear: LoraLinear(linear.weight, linear.bias, linear, (index, name), adapters)
    )
    return adapters


def _attach_to_modules(decoder: HasModules) -> LoraAdapters:
    targets: dict[str, LoraTarget] = {}
    adapters = LoraAdapters(targets, decoder.device)
    for name, module in decoder.decoder_modules().items():
        if sizes := _sizes(name, module):
            key = (0, name)
            targets[name] = LoraTarget(key, 0, *sizes)
            module.register_forward_hook(partial(_add, adapters, key))
    return adapters


def _sizes(name: str, module: nn.Module) -> tuple[int, int] | None:
    """Return the numbers of outputs and inputs of a linear layer that computes all tokens."""
    if ".experts." in name:
        return None
    if isinstance(module, _Conv1D):
        return module.nf, module.nx
    return (module.out_features, module.in_features) if isinstance(module, _HasFeatures) else None


def _add(
    adapters: LoraAdapters,
    key: Key,
    module: nn.Module,  # noqa: ARG001
    inputs: tuple[Any, ...],
    output: Tensor,
) -> Tensor:
    """Return the output of a module, [..., out], with what the adapters add (a forward hook)."""
    x, out = inputs[0], output.reshape(-1, output.shape[-1])
    return adapters.apply(key, x.reshape(-1, x.shape[-1]), out).view(output.shape)


def lora_targets(a: Architecture) -> dict[str, LoraTarget]:
    """Return the matrix of each linear layer, by its name in the decoder: ``layers.0.mlp.up_proj``.

    The matrices of experts and of their router are left out.
    """
    hidden, inner = a.hidden_size, a.intermediate_size
    queries, keys = a.heads * a.head_dim, a.kv_heads * a.head_dim
    attention = [
        ("self_attn.q_proj", "qkv", 0, queries, hidden),
        ("self_attn.k_proj", "qkv", queries, keys, hidden),
        ("self_attn.v_proj", "qkv", queries + keys, keys, hidden),
        ("self_attn.qkv_proj", "qkv", 0, queries + 2 * keys, hidden),
        ("self_attn.o_proj", "output", 0, hidden, queries),
    ]
    mlp = [
        ("mlp.gate_proj", "gate_up", 0, inner, hidden),
        ("mlp.up_proj", "gate_up", inner, inner, hidden),
        ("mlp.gate_up_proj", "gate_up", 0, 2 * inner, hidden),
        ("mlp.down_proj", "down", 0, hidden, inner),
    ]
    return {
        f"layers.{index}.{name}": LoraTarget((index, matrix), first, outputs, inputs)
        for index, kind in enumerate(a.layers)
        for name, matrix, first, outputs, inputs in attention + ([] if kind.sparse else mlp)
    }
