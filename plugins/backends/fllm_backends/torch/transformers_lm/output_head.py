"""The output head of a transformers model: logits of hidden states, with the scales and caps of its class."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class OutputHead:
    """The forward method of a class with a stand-in for its decoder, which returns given hidden states."""

    def __init__(self, owner: nn.Module, decoder: nn.Module) -> None:
        """Copy ``owner``, the innermost module with an output head over the decoder. Weights are shared."""
        self._states: Tensor | None = None
        self._owner = self._copy(owner, decoder)
        del self._owner.forward  # of the class again

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return [rows, vocabulary] float32 logits of [rows, hidden] states."""
        self._states = hidden[None]
        ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        logits: Tensor = self._owner(input_ids=ids, use_cache=False).logits
        return logits[0].float()

    def _copy(self, module: nn.Module, decoder: nn.Module) -> nn.Module:
        """Return a copy, down to the decoder, of the modules over it. They all return the given states."""
        result = copy.copy(module)
        result._modules = {
            name: self._copy(child, decoder) if child and decoder in set(child.modules()) else child
            for name, child in module._modules.items()
        }
        result.forward = self._forward
        return result

    def _forward(self, *_: Any, **__: Any) -> _Output:
        assert self._states is not None, "logits are computed from hidden states"
        return _Output(self._states)


class _Output:
    """What a decoder returns: hidden states, and none of the optional values."""

    def __init__(self, states: Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, index: int) -> Tensor:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        return None
