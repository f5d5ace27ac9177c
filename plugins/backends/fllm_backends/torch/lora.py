"""LoRA adapters (arXiv 2106.09685): read them, and add their products to those of a decoder's matrices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import safetensors
import torch
import torch.nn.functional as F
from torch import Tensor

from fllm.batching.runner import Row
from fllm.errors import ConfigError, ModelError
from fllm.interfaces import NO_ADAPTERS
from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.checkpoints.lora import LoraCheckpoint
from fllm_backends.checkpoints.safetensors_files import open_safetensors
from fllm_backends.torch.model import CausalLM, Decoder, Linear

_PREFIX = re.compile(r"^(language_model\.)?model\.(language_model\.)?")
"""What precedes the decoder's own names, as in `fllm_backends.torch.weights`."""

Key = tuple[int, str]
"""A matrix of a decoder: the number of its layer and a name."""


class LoraTarget(NamedTuple):
    """The part of a decoder's matrix that is one module of the checkpoint."""

    key: Key
    first: int
    """Number of the matrix's outputs that precede those of the module."""
    outputs: int
    inputs: int


@dataclass(frozen=True, slots=True)
class LoraPart:
    """The product of one module, of its outputs from ``first`` on."""

    a: Tensor
    """[rank, in]"""
    b: Tensor
    """[out, rank], multiplied by the scale of the adapter."""
    first: int

    def add(self, x: Tensor, out: Tensor, tokens: Tensor | None) -> None:
        """Add to [tokens, all outputs], only for these tokens of [tokens, in] unless they are ``None``."""
        part = out[:, self.first : self.first + len(self.b)]
        if tokens is None:
            part += F.linear(F.linear(x.float(), self.a), self.b).to(out.dtype)
        else:
            product = F.linear(F.linear(x.index_select(0, tokens).float(), self.a), self.b)
            part.index_add_(0, tokens, product.to(out.dtype))


Adapter = Mapping[Key, Sequence[LoraPart]]
"""The products of an adapter for each matrix, in float32."""


class _Group(NamedTuple):
    """The tokens of a batch that have the same adapter."""

    adapter: Adapter
    tokens: Tensor | None
    """Their positions in the batch; ``None``: all."""


class LoraAdapters:
    """The loaded adapters of a decoder, and how the current batch uses them."""

    def __init__(self, targets: Mapping[str, LoraTarget], device: torch.device) -> None:
        self._targets = targets
        self._device = device
        self._adapters: dict[int, Adapter] = {}
        self._groups: list[_Group] = []

    def read(self, checkpoint: LoraCheckpoint) -> Adapter:
        """Read the tensors of an adapter. Raise `ModelError` if they do not fit the model."""
        return read_adapter(checkpoint, self._targets)

    def add(self, adapter_id: int, adapter: Adapter) -> None:
        """Move an adapter to the device and make it available."""
        self._adapters[adapter_id] = {
            key: [replace(part, a=part.a.to(self._device), b=part.b.to(self._device)) for part in parts]
            for key, parts in adapter.items()
        }

    def remove(self, adapter_id: int) -> None:
        """Free an adapter."""
        self._groups = []
        self._adapters.pop(adapter_id, None)

    def select(self, rows: Sequence[Row]) -> None:
        """Group the tokens of the next batch by adapter."""
        self._groups = []
        used = {row.adapter for row in rows}
        if used == {0}:
            return
        if len(used) == 1:
            self._groups = [_Group(self._adapters[used.pop()], None)]
            return
        tokens: dict[int, list[int]] = {adapter: [] for adapter in sorted(used - {0})}
        at = 0
        for row in rows:
            if row.adapter:
                tokens[row.adapter] += range(at, at + row.count)
            at += row.count
        self._groups = [
            _Group(self._adapters[adapter], torch.tensor(places, device=self._device))
            for adapter, places in tokens.items()
        ]

    def apply(self, key: Key, x: Tensor, out: Tensor) -> Tensor:
        """Add the products of a matrix to its output, [tokens, out], in place; ``x`` is [tokens, in]."""
        for adapter, tokens in self._groups:
            for part in adapter.get(key, ()):
                part.add(x, out, tokens)
        return out


@dataclass(frozen=True, slots=True)
class LoraLinear(Linear):
    """A linear layer, with what the adapters of the current batch add."""

    key: Key = (0, "")
    adapters: LoraAdapters | None = None

    def __call__(self, x: Tensor) -> Tensor:
        assert self.adapters is not None
        return self.adapters.apply(self.key, x, Linear.__call__(self, x))


def attach_lora(model: Decoder) -> LoraAdapters:
    """Let the linear layers of a decoder apply adapters. Return those, none at first.

    Raise `ConfigError` if the decoder can't apply any.
    """
    if not isinstance(model, CausalLM):
        raise ConfigError(f"--enable-lora, --lora-modules: {NO_ADAPTERS} to this model on this device")
    adapters = LoraAdapters(lora_targets(model.architecture), model.device)
    model.wrap_linears(
        lambda index, name, linear: LoraLinear(linear.weight, linear.bias, (index, name), adapters)
    )
    return adapters


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


def read_adapter(checkpoint: LoraCheckpoint, targets: Mapping[str, LoraTarget]) -> Adapter:
    """Read the tensors of an adapter. Raise `ModelError` if a module is not in ``targets`` or misshapen."""
    adapter: dict[Key, list[LoraPart]] = {}
    reader = open_safetensors(checkpoint.file, "pt")
    trained_for = f"; it was trained for {checkpoint.base_model!r}" if checkpoint.base_model else ""
    for name, module in checkpoint.modules.items():
        target = targets.get(_PREFIX.sub("", name))
        if target is None:
            raise ModelError(
                f"{checkpoint.file} adapts {name!r}; this model has no such linear layer, or can't adapt it"
                f"{trained_for}"
            )
        if (module.outputs, module.inputs) != (target.outputs, target.inputs):
            raise ModelError(
                f"{checkpoint.file} adapts {name!r} as a matrix of {module.outputs} x {module.inputs}; "
                f"in this model it has {target.outputs} x {target.inputs}{trained_for}"
            )
        try:
            a, b = reader.get_tensor(module.a).float(), reader.get_tensor(module.b).float()
        except (OSError, safetensors.SafetensorError) as error:
            raise ModelError(f"{checkpoint.file} can't be read: {error}") from error
        adapter.setdefault(target.key, []).append(LoraPart(a, b * module.scale, target.first))
    return adapter
