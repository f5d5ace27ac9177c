"""Fill a decoder's weights from a checkpoint or with random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from fllm.values import Progress
from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch.checkpoint import Checkpoint
from fllm_backends.torch.model import Layer, Linear, RMSNorm, Weights
from fllm_backends.torch.weight_matrix import WeightMatrix

TASK = "Loading weights"


class TensorSource(Protocol):
    """A source of tensors under Hugging Face's names."""

    def stack(self, names: list[str], *shapes: tuple[int, ...]) -> Tensor:
        """Return the tensors of these names and shapes, concatenated along the first dimension.

        The result is on the source's device and in its dtype.
        """
        ...

    def matrix(self, names: list[str], *shapes: tuple[int, int]) -> Tensor | WeightMatrix:
        """Return weight matrices, concatenated along the first dimension. They may stay in their file."""
        ...


class CheckpointSource:
    """Reads the tensors of a model directory."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._device = device
        self._dtype = dtype

    def stack(self, names: list[str], *shapes: tuple[int, ...]) -> Tensor:
        """Read and concatenate; a single tensor that needs no conversion stays mapped from its file."""
        parts = [
            self._checkpoint.tensor(name, *shape, dtype=self._dtype)
            for name, shape in zip(names, shapes, strict=True)
        ]
        if len(parts) == 1:
            return parts[0].to(self._device, self._dtype)
        whole = parts[0].new_empty(
            (sum(len(part) for part in parts), *shapes[0][1:]), device=self._device, dtype=self._dtype
        )
        for target, part in zip(torch.split(whole, [len(part) for part in parts]), parts, strict=True):
            target.copy_(part)
        return whole

    def matrix(self, names: list[str], *shapes: tuple[int, int]) -> Tensor:
        """Read and concatenate."""
        return self.stack(names, *shapes)


class RandomSource:
    """Generates random tensors on the device, for benchmarks (``--load-format dummy``)."""

    _STANDARD_DEVIATION = 0.02  # with which the models of the family are initialised

    def __init__(self, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._device = device
        self._dtype = dtype

    def stack(self, names: list[str], *shapes: tuple[int, ...]) -> Tensor:
        """Return ones for a norm, zeros for a bias, otherwise a normal distribution."""
        shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        whole = torch.empty(shape, device=self._device, dtype=self._dtype)
        if len(shape) == 1:
            return whole.fill_(float("norm" in names[0]))
        return whole.normal_(0.0, self._STANDARD_DEVIATION, generator=self._generator)

    def matrix(self, names: list[str], *shapes: tuple[int, int]) -> Tensor:
        """Return a normal distribution."""
        return self.stack(names, *shapes)


def load_weights(
    architecture: Architecture, source: TensorSource, progress: Callable[[Progress], None]
) -> Weights:
    """Read all weights, each layer when it is iterated.

    Raise `ModelError` for a missing or misshapen tensor.
    """
    a = architecture
    embedding = source.matrix(["model.embed_tokens.weight"], (a.vocab_size, a.hidden_size))
    norm = RMSNorm(source.stack(["model.norm.weight"], (a.hidden_size,)), a.norm_eps)
    head = embedding if a.tied else source.matrix(["lm_head.weight"], (a.vocab_size, a.hidden_size))
    return Weights(embedding, _Layers(a, source, progress), norm, head)


class _Layers(Iterable[Layer]):
    def __init__(
        self, architecture: Architecture, source: TensorSource, progress: Callable[[Progress], None]
    ) -> None:
        self._a = architecture
        self._source = source
        self._progress = progress

    def __iter__(self) -> Iterator[Layer]:
        total = len(self._a.layers)
        for index in range(total):
            self._progress(Progress(TASK, index, total))
            yield _LayerLoader(self._a, self._source, f"model.layers.{index}.").load()
        self._progress(Progress(TASK, total, total))


class _LayerLoader:
    def __init__(self, architecture: Architecture, source: TensorSource, prefix: str) -> None:
        self._a = architecture
        self._source = source
        self._prefix = prefix

    def load(self) -> Layer:
        a = self._a
        hidden, inner = a.hidden_size, a.intermediate_size
        queries, keys = a.heads * a.head_dim, a.kv_heads * a.head_dim
        return Layer(
            input_norm=self._norm("input_layernorm", hidden),
            qkv=self._linear("self_attn", hidden, a.qkv_bias, q_proj=queries, k_proj=keys, v_proj=keys),
            output=self._linear("self_attn", queries, a.output_bias, o_proj=hidden),
            post_attention_norm=self._norm("post_attention_layernorm", hidden),
            gate_up=self._linear("mlp", hidden, a.mlp_bias, gate_proj=inner, up_proj=inner),
            down=self._linear("mlp", inner, a.mlp_bias, down_proj=hidden),
            q_norm=self._norm("self_attn.q_norm", a.head_dim) if a.qk_norm else None,
            k_norm=self._norm("self_attn.k_norm", a.head_dim) if a.qk_norm else None,
        )

    def _linear(self, module: str, inputs: int, bias: bool, **outputs: int) -> Linear:
        names = [f"{self._prefix}{module}.{name}" for name in outputs]
        weight = self._source.matrix([f"{n}.weight" for n in names], *((o, inputs) for o in outputs.values()))
        if not bias:
            return Linear(weight)
        return Linear(
            weight, self._source.stack([f"{n}.bias" for n in names], *((o,) for o in outputs.values()))
        )

    def _norm(self, name: str, size: int) -> RMSNorm:
        return RMSNorm(self._source.stack([f"{self._prefix}{name}.weight"], (size,)), self._a.norm_eps)
