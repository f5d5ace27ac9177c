"""Read LoRA adapters, and add their products for the tokens of a batch."""

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
from fllm.errors import ModelError
from fllm_backends.checkpoints.lora import LoraCheckpoint
from fllm_backends.checkpoints.safetensors_files import open_safetensors

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


def read_adapter(checkpoint: LoraCheckpoint, targets: Mapping[str, LoraTarget]) -> Adapter:
    """Read the tensors of an adapter. Raise `ModelError` if a module is not in ``targets`` or misshapen."""
    adapter: dict[Key, list[LoraPart]] = {}
    reader = open_safetensors(checkpoint.file, "pt")
    trained_for = f"; it was trained for {checkpoint.base_model!r}" if checkpoint.base_model else ""
    for name, module in checkpoint.modules.items():
        target = targets.get(name) or targets.get(_PREFIX.sub("", name))
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
        b = b * module.scale
        if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise ModelError(f"{checkpoint.file}: the matrices of {name!r} hold numbers that are not finite")
        adapter.setdefault(target.key, []).append(LoraPart(a, b, target.first))
    return adapter
