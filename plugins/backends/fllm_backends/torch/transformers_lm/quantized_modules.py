"""Replace linear layers of a transformers model by the int8 and fp8 products of a CUDA device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fllm_backends.torch.cuda.linear import LinearOp, load_linear
from fllm_backends.torch.lazy_weights import read_tensor
from fllm_backends.torch.model import Linear
from fllm_backends.torch.transformers_lm.packed_modules import linear_layers, linear_matrix


class QuantizedLinear(nn.Module):
    """Replaces an `nn.Linear`. Its ``weight`` is empty: some classes read the dtype of a layer from it."""

    def __init__(self, product: LinearOp, shape: tuple[int, int], like: Tensor) -> None:
        """Wrap a product of a matrix of ``shape``, [out, in], in the dtype and on the device of ``like``."""
        super().__init__()
        self.out_features, self.in_features = shape
        self.weight = like
        self._product = product

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out] of [..., in]."""
        rows = x.reshape(-1, self.in_features).contiguous()
        if not len(rows):  # an expert without tokens: a kernel needs a program
            return x.new_empty(*x.shape[:-1], self.out_features)
        return self._product(rows).view(*x.shape[:-1], self.out_features)


def quantize_modules(
    model: nn.Module, quantization: str, device: torch.device, on_quantized: Callable[[], None]
) -> None:
    """Replace linear layers, see `linear_layers`, by products on the device; free their weights.

    ``quantization`` is a key of `LINEAR_KINDS`. Weights that are not read yet are read one after the other.
    Those that the checkpoint stores in this form are not rounded again. ``on_quantized`` follows each.
    """
    for parent, name, linear in linear_layers(model):
        like = torch.empty(0, dtype=linear.weight.dtype, device=device)
        matrix = linear_matrix(linear)
        bias = None if linear.bias is None else read_tensor(linear.bias).detach().to(like)
        product = load_linear(Linear(matrix, bias), quantization, like)
        setattr(parent, name, QuantizedLinear(product, matrix.shape, like))
        on_quantized()
