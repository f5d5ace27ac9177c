"""From hidden states to one vector for each input: pooling, dense layers, normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fllm.errors import ModelError
from fllm_backends.checkpoints.pooling_config import Activation, DenseLayer, PoolingMode
from fllm_backends.torch.checkpoint import Checkpoint
from fllm_backends.torch.pooling.model import last_token

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda x: torch.softmax(x, dim=-1),
    "relu": torch.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


def pool(hidden: Tensor, lengths: Tensor, modes: Sequence[PoolingMode]) -> Tensor:
    """Return the pooled states [batch, modes * hidden] of [batch, length, hidden], padded on the right.

    The modes are those of Sentence Transformers' ``Pooling``; sums are computed in float32.
    """
    hidden = hidden.float()
    mask = (torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None])[..., None]
    return torch.cat([_pool(hidden, mask, lengths, mode) for mode in modes], dim=-1)


def _pool(hidden: Tensor, mask: Tensor, lengths: Tensor, mode: PoolingMode) -> Tensor:
    counts = lengths[:, None].float()
    match mode:
        case "cls":
            return hidden[:, 0]
        case "lasttoken":
            return last_token(hidden, lengths)
        case "max":
            return hidden.masked_fill(~mask, float("-inf")).amax(dim=1)
        case "mean":
            return (hidden * mask).sum(dim=1) / counts
        case "mean_sqrt_len_tokens":
            return (hidden * mask).sum(dim=1) / counts.sqrt()
        case "weightedmean":
            weights = mask * torch.arange(1, hidden.shape[1] + 1, device=hidden.device)[None, :, None]
            return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


class Dense:
    """The dense layers after the pooling."""

    def __init__(self, layers: Sequence[DenseLayer], size: int, device: torch.device) -> None:
        self.size = size
        """Number of values of an embedding."""
        self._layers: list[tuple[nn.Linear, Callable[[Tensor], Tensor]]] = []
        for layer in layers:
            self._layers.append((self._load(layer, device), ACTIVATIONS[layer.activation]))
            self.size = layer.out_features

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return the vectors after all layers."""
        for linear, activation in self._layers:
            vectors = activation(linear(vectors))
        return vectors

    def _load(self, layer: DenseLayer, device: torch.device) -> nn.Linear:
        """Load a layer. Raise `ModelError` if it does not fit to the one before."""
        if layer.in_features != self.size:
            raise ModelError(
                f"{layer.directory / 'config.json'}: in_features is {layer.in_features}, and its input "
                f"has {self.size} values"
            )
        checkpoint = Checkpoint(layer.directory)
        with torch.device("meta"):
            linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
        names = {"weight": (layer.out_features, layer.in_features)} | (
            {"bias": (layer.out_features,)} if layer.bias else {}
        )
        tensors = {name: checkpoint.tensor(f"linear.{name}", *shape).float() for name, shape in names.items()}
        linear.load_state_dict(tensors, assign=True)
        return linear.to(device)
