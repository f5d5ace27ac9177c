"""Read the weights of a model directory as torch tensors, mapped into memory and dequantized on request."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from fllm.errors import ModelError
from fllm_backends.checkpoints.quantized.config import read_quantization
from fllm_backends.checkpoints.quantized.stored_weights import StoredWeight, cache_scales, read_stored_weights
from fllm_backends.checkpoints.safetensors_files import describe_missing, open_safetensors
from fllm_backends.torch.quantized.reader import quantized_weight
from fllm_backends.torch.quantized.weight import QuantizedWeight
from fllm_backends.torch.weight_matrix import WeightMatrix, as_matrix

log = logging.getLogger("fllm.model")


class Checkpoint:
    """Weights of a model directory by name; each is read on request.

    Names are those of a checkpoint that is not quantized.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, Any] = {}
        self._config = read_quantization(directory)
        self._weights, self._headers = read_stored_weights(directory)
        if (self._config and self._config.quantized_cache) or cache_scales(self._headers):
            log.info("scales of a quantized KV cache are ignored: the cache is not quantized")

    @property
    def quantization(self) -> str | None:
        """Method by which weights are quantized, or the formats that were found without a configuration."""
        if self._config:
            return self._config.method
        quantized = (stored for stored in self._weights.values() if stored.format != "plain")
        return "+".join(sorted({self._format(stored) for stored in quantized})) or None

    def _format(self, stored: StoredWeight) -> str:
        if stored.format == "scaled":
            return "int8" if self._headers[stored.parts["values"]].dtype == "I8" else "fp8"
        return stored.format

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def tensor(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a weight; raise `ModelError` if it is missing, misshapen or not floating-point.

        ``dtype`` is that of a weight that is dequantized. Others stay as they are.
        """
        weight = self._checked(name, shape)
        return weight if isinstance(weight, Tensor) else weight.dequantize(dtype)

    def matrix(self, name: str, rows: int, columns: int) -> WeightMatrix:
        """Return a weight that stays in its file; raise `ModelError` as `tensor` does."""
        return as_matrix(self._checked(name, (rows, columns)))

    def _checked(self, name: str, shape: tuple[int, ...]) -> Tensor | QuantizedWeight:
        weight = self.weight(name)
        where = self._where(name)
        if tuple(weight.shape) != shape:
            raise ModelError(
                f"{where} has the shape {list(weight.shape)}; config.json requires {list(shape)}"
            )
        if isinstance(weight, Tensor) and not weight.is_floating_point():
            raise ModelError(f"{where} is of type {weight.dtype}; it can't be read without its scales")
        return weight

    def weight(self, name: str) -> Tensor | QuantizedWeight:
        """Return a weight as it is stored; raise `ModelError` if it is missing or damaged."""
        stored = self._stored(name)
        if stored.format == "plain":
            return self._tensor(name)
        try:
            weight = quantized_weight(stored, self._tensor, self._config)
            weight.check()
            return weight
        except (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError) as error:
            # torch raises them for shapes and types that do not match
            raise ModelError(f"{self._where(name)} can't be dequantized: {error}") from error
        except ModelError as error:
            raise ModelError(f"{self._where(name)}: {error.message}") from error

    def read(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a weight of any shape and type; raise `ModelError` if it is missing.

        ``dtype`` is that of a weight that is dequantized.
        """
        weight = self.weight(name)
        return weight if isinstance(weight, Tensor) else weight.dequantize(dtype)

    def _where(self, name: str) -> str:
        file = self._headers[self._stored(name).parts["values"]].file
        return f"the weight {name!r} in {self._directory / file}"

    def _stored(self, name: str) -> StoredWeight:
        if name not in self._weights:
            raise ModelError(describe_missing(self._directory, name))
        return self._weights[name]

    def _tensor(self, name: str) -> Tensor:
        file = self._headers[name].file
        try:
            tensor: Tensor = self._reader(file).get_tensor(name)
        except (OSError, safetensors.SafetensorError) as error:
            raise ModelError(f"{self._directory / file} can't be read: {error}") from error
        return tensor

    def _reader(self, file: str) -> Any:
        if file not in self._open:
            self._open[file] = open_safetensors(self._directory / file, "pt")
        return self._open[file]
