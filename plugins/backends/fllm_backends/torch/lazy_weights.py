"""Weights that transformers' code renames, merges and divides before they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import EllipsisType
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fllm_backends.torch.fused.padding import place
from fllm_backends.torch.quantized.codebooks import TransposedExperts
from fllm_backends.torch.quantized.weight import QuantizedWeight
from fllm_backends.torch.weight_matrix import (
    StackedMatrix,
    TensorMatrix,
    WeightMatrix,
    as_matrix,
    materialize,
)

StoredWeight: TypeAlias = Tensor | WeightMatrix | QuantizedWeight
"""A weight as it is stored. Only a tensor may be in memory, or mapped from its file."""
_UNCHANGED = (Tensor.detach, Tensor.contiguous, Tensor.clone, Tensor.to)
"""Functions that return the same numbers."""
_IN_PLACE = ("__setitem__", "copy_", "fill_", "mul_", "add_")


class NamedWeights(Protocol):
    """Weights by Hugging Face's names."""

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the names."""
        ...

    def weight(self, name: str) -> StoredWeight:
        """Return a weight as it is stored; raise `ModelError` if it is missing."""
        ...


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a function of torch that has been put off."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    index: int | None = None
    """Which of several results is meant."""

    @property
    def dim(self) -> int:
        """The dimension along which tensors are joined."""
        return int(self.options.get("dim", (*self.arguments, 0, 0)[1]))


class LazyTensor(Tensor):
    """A tensor without values, on the device ``meta``, and how to compute them.

    A function of torch that is called with it returns another one. So the code of a library can merge and
    divide weights that stay in their files.
    """

    origin: StoredWeight | _Call

    @classmethod
    def create(cls, like: Tensor, origin: StoredWeight | _Call) -> LazyTensor:
        """Return a tensor of the shape and type of another one, which is on the device ``meta``."""
        tensor: LazyTensor = Tensor._make_subclass(cls, like)
        tensor.origin = origin
        return tensor

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Record a call. Raise `NotImplementedError` if it changes a tensor in place."""
        options = dict(kwargs or {})
        if func.__name__ in _IN_PLACE:
            raise NotImplementedError(f"{func.__name__} of a weight that is not read yet")
        if func is Tensor.to:  # the device is that of the model once it is read
            args = (args[0], *(each for each in args[1:] if isinstance(each, torch.dtype)))
            options = {"dtype": options["dtype"]} if options.get("dtype") else {}
            if not options and len(args) == 1:
                return args[0]
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **options)
        if isinstance(result, tuple | list) and any(isinstance(each, Tensor) for each in result):
            calls = (_Call(func, args, options, index) for index in range(len(result)))
            return [cls.create(each, call) for each, call in zip(result, calls, strict=True)]
        if not isinstance(result, Tensor) or isinstance(result, cls):
            return result
        return cls.create(result, _Call(func, args, options))


class LazyWeight:
    """A weight of which ``[...]`` returns a `LazyTensor`, as a slice of a safetensors file does a tensor."""

    def __init__(self, weights: NamedWeights, name: str, dtype: torch.dtype) -> None:
        self._weights = weights
        self._name = name
        self._dtype = dtype

    def __getitem__(self, everything: EllipsisType) -> LazyTensor:
        """Return the weight. One that is not quantized keeps its dtype."""
        stored = self._weights.weight(self._name)
        dtype = stored.dtype if isinstance(stored, Tensor) else self._dtype
        return LazyTensor.create(torch.empty(stored.shape, dtype=dtype, device="meta"), stored)


def lazy_weights(weights: NamedWeights, dtype: torch.dtype) -> dict[str, LazyWeight]:
    """Return all weights by name, for ``from_pretrained(None, state_dict=...)`` of transformers.

    Its renames and merges of experts apply to the names, which are those of a checkpoint that is not
    quantized. Quantized weights have this ``dtype``. The parameters of the model are `LazyTensor`s, until
    `read_parameters` is called.
    """
    return {name: LazyWeight(weights, name, dtype) for name in weights}


def read_parameters(model: nn.Module, device: torch.device, on_read: Callable[[], None]) -> None:
    """Read the parameters and buffers of a model that are lazy, one after the other. Shared ones stay shared.

    ``on_read`` is called after each.
    """
    read: dict[int, Tensor] = {}
    lazy: list[LazyTensor] = []  # keeps the identity of those that were replaced
    for module in model.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if not isinstance(tensor, LazyTensor):
                continue
            if id(tensor) not in read:
                lazy.append(tensor)
                value = read_tensor(tensor).to(device)
                is_parameter = name in module._parameters
                read[id(tensor)] = nn.Parameter(value, requires_grad=False) if is_parameter else value
                on_read()
            setattr(module, name, read[id(tensor)])


def read_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor with its values."""
    if not isinstance(tensor, LazyTensor):
        return tensor
    origin = tensor.origin
    if isinstance(origin, _Call):
        result = origin.function(*_read_all(origin.arguments), **origin.options)
        values: Tensor = result if origin.index is None else result[origin.index]
        return values
    if isinstance(origin, QuantizedWeight):
        return origin.dequantize(tensor.dtype)
    if isinstance(origin, Tensor):
        return origin
    return materialize(origin, torch.empty(0, dtype=tensor.dtype))


def stored_types(tensor: Tensor) -> Iterator[torch.dtype]:
    """Yield the types of the stored tensors that a lazy one is made of; none for quantized weights."""
    origin = tensor.origin if isinstance(tensor, LazyTensor) else None
    if isinstance(origin, Tensor):
        yield origin.dtype
    pending: list[Any] = [origin.arguments] if isinstance(origin, _Call) else []
    while pending:
        for each in pending.pop():
            if isinstance(each, tuple | list):
                pending.append(each)
            elif isinstance(each, LazyTensor):
                yield from stored_types(each)


def _read_all(arguments: Any) -> Any:
    if isinstance(arguments, tuple | list):
        return type(arguments)(_read_all(each) for each in arguments)
    return read_tensor(arguments) if isinstance(arguments, LazyTensor) else arguments


def matrix_of(tensor: Tensor) -> WeightMatrix:
    """Return a tensor [out, in] as a matrix; one that is lazy stays in its file if it only joins others."""
    origin = _origin(tensor)
    if isinstance(origin, _Call):
        if origin.function is torch.cat and origin.dim == 0:
            return stacked([matrix_of(each) for each in origin.arguments[0]])
        if origin.function is Tensor.narrow and origin.arguments[1] == 0:
            return _take_rows(matrix_of(origin.arguments[0]), *origin.arguments[2:])
        return TensorMatrix(read_tensor(tensor))
    return as_matrix(origin)


def expert_matrices(tensor: Tensor, *, transposed: bool) -> list[WeightMatrix]:
    """Return the matrices [out, in] of a tensor [experts, out, in]; [experts, in, out] if it is transposed.

    Those of a lazy one stay in their files, if it only joins others.
    """
    origin = _origin(tensor)
    if isinstance(origin, _Call) and not transposed:
        if origin.function is torch.stack and origin.dim == 0:
            return [matrix_of(each) for each in origin.arguments[0]]
        if origin.function is torch.cat and origin.dim == 1:
            parts = [expert_matrices(each, transposed=False) for each in origin.arguments[0]]
            return [stacked(list(matrices)) for matrices in zip(*parts, strict=True)]
        if origin.function is Tensor.narrow and origin.arguments[1] == 1:
            whole = expert_matrices(origin.arguments[0], transposed=False)
            return [_take_rows(each, *origin.arguments[2:]) for each in whole]
    if isinstance(origin, TransposedExperts) and transposed:
        return cast("list[WeightMatrix]", origin.matrices())
    if isinstance(origin, QuantizedWeight):
        expert = lru_cache(maxsize=1)(partial(_read_expert, origin, transposed))
        return [_ExpertMatrix(expert, index, _sizes(origin, transposed)) for index in range(origin.shape[0])]
    values = read_tensor(tensor) if isinstance(origin, _Call) else origin
    assert isinstance(values, Tensor), "a matrix has two dimensions"
    return [TensorMatrix(each.T if transposed else each) for each in values]


def _take_rows(matrix: WeightMatrix, start: int, count: int) -> WeightMatrix:
    return place(matrix, np.arange(start, start + count), np.arange(matrix.shape[1]))


def stacked(matrices: list[WeightMatrix]) -> WeightMatrix:
    """Return matrices as one; each keeps its quantization."""
    parts = [
        part for each in matrices for part in (each.parts if isinstance(each, StackedMatrix) else (each,))
    ]
    return parts[0] if len(parts) == 1 else StackedMatrix(tuple(parts))


def _origin(tensor: Tensor) -> StoredWeight | _Call:
    """Return where the numbers of a tensor come from."""
    while isinstance(tensor, LazyTensor):
        origin = tensor.origin
        if not isinstance(origin, _Call) or origin.function not in _UNCHANGED:
            return origin
        tensor = origin.arguments[0]
    return tensor


def _sizes(weight: QuantizedWeight, transposed: bool) -> tuple[int, int]:
    first, second = weight.shape[1:]
    return (second, first) if transposed else (first, second)


def _read_expert(weight: QuantizedWeight, transposed: bool, index: int) -> Tensor:
    expert = weight.rows(index, index + 1)[0]
    return expert.T if transposed else expert


class _ExpertMatrix:
    """One expert of a quantized weight, as a `WeightMatrix`. It is read as a whole."""

    gguf_type = None

    def __init__(self, read: Callable[[int], Tensor], index: int, shape: tuple[int, int]) -> None:
        self._read = read
        self._index = index
        self.shape = shape

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows as float32."""
        return self._read(self._index)[start:stop].contiguous()

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Raise `NotImplementedError`: the rows are not in GGUF's blocks."""
        raise NotImplementedError
