"""Fill a decoder's weights from a checkpoint or with random numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from fllm.values import Progress
from fllm_backends.checkpoints.architecture import Architecture, ExpertShape, LayerKind
from fllm_backends.torch.checkpoint import Checkpoint
from fllm_backends.torch.model import Experts, Layer, Linear, Mlp, RMSNorm, Weights
from fllm_backends.torch.quantized.weight import QuantizedWeight
from fllm_backends.torch.weight_matrix import StackedMatrix, TensorMatrix, WeightMatrix

TASK = "Loading weights"
_PREFIXES = ("model.", "", "language_model.model.", "model.language_model.")
"""Prefixes of the decoder's tensors. Base models have none; multimodal ones have that of their text part."""
_HEAD_PREFIXES = ("", "language_model.")
_LAYER = re.compile(r"(?:.*\.)?layers\.\d+\.")
_BUFFER = "rotary_emb.inv_freq"
"""A tensor that old checkpoints have, and that is computed here."""
_MlpNames: TypeAlias = tuple[str, str, str]
_MLP_NAMES: _MlpNames = ("gate_proj", "up_proj", "down_proj")
_MIXTRAL_NAMES: _MlpNames = ("w1", "w3", "w2")
_MIXTRAL, _MIXTRAL_MODULE = ("MixtralForCausalLM",), "block_sparse_moe."
_LLAMA_NORMS = ("input_layernorm", None, "post_attention_layernorm", None)
_GEMMA_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
_NORMS: dict[str, tuple[str | None, str, str | None, str]] = {
    "Gemma2ForCausalLM": _GEMMA_NORMS,
    "Gemma3ForCausalLM": _GEMMA_NORMS,
    "Gemma3ForConditionalGeneration": _GEMMA_NORMS,
    "Olmo2ForCausalLM": (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    "Glm4ForCausalLM": (
        "input_layernorm",
        "post_self_attn_layernorm",
        "post_attention_layernorm",
        "post_mlp_layernorm",
    ),
}
"""Names of the norms of attention's input and output, and of the MLP's."""


class TensorSource(Protocol):
    """A source of tensors under Hugging Face's names."""

    def __contains__(self, name: str) -> bool:
        """Return whether there is a tensor of this name."""
        ...

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
        self.blocks: Counter[str] = Counter()
        """Number of quantized matrices by the type of GGUF that holds them; ``none`` if no type does."""
        self._read: set[str] = set()

    def unused(self) -> list[str]:
        """Return the weights of the layers that were read which the decoder does not have."""
        layers = {match[0] for name in self._read if (match := _LAYER.match(name))}
        others = [name for name in self._checkpoint if name not in self._read and not name.endswith(_BUFFER)]
        return sorted(name for name in others if (match := _LAYER.match(name)) and match[0] in layers)

    def __contains__(self, name: str) -> bool:
        """Return whether the directory has a tensor of this name."""
        return name in self._checkpoint

    def stack(self, names: list[str], *shapes: tuple[int, ...]) -> Tensor:
        """Read and concatenate; a single tensor that needs no conversion stays mapped from its file."""
        self._read.update(names)
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

    def matrix(self, names: list[str], *shapes: tuple[int, int]) -> Tensor | WeightMatrix:
        """Return matrices that stay in their files, or a tensor if no conversion is needed on the way."""
        self._read.update(names)
        parts = [self._checkpoint.matrix(name, *shape) for name, shape in zip(names, shapes, strict=True)]
        dtypes = [part.dtype for part in parts if isinstance(part, TensorMatrix)]
        is_plain = len(dtypes) == len(parts)
        if is_plain and (self._device.type != "cpu" or dtypes == [self._dtype]):
            return self.stack(names, *shapes)
        self.blocks.update(part.gguf_type or "none" for part in parts if isinstance(part, QuantizedWeight))
        return parts[0] if len(parts) == 1 else StackedMatrix(tuple(parts))


class RandomSource:
    """Generates random tensors on the device, for benchmarks (``--load-format dummy``)."""

    _STANDARD_DEVIATION = 0.02  # with which the models of the family are initialised

    def __init__(self, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._device = device
        self._dtype = dtype

    def __contains__(self, name: str) -> bool:
        """Return True: there is a tensor of any name."""
        return True

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
    a, prefix = architecture, _first(source, "embed_tokens.weight", _PREFIXES)
    table = (a.vocab_size, a.hidden_size)
    embedding = source.matrix([f"{prefix}embed_tokens.weight"], table)
    norm = _norm(a, source, f"{prefix}norm.weight", a.hidden_size)
    head = (
        embedding
        if a.tied
        else source.matrix([_first(source, "lm_head.weight", _HEAD_PREFIXES) + "lm_head.weight"], table)
    )
    return Weights(embedding, _Layers(a, source, f"{prefix}layers.", progress), norm, head)


class _Layers(Iterable[Layer]):
    def __init__(
        self,
        architecture: Architecture,
        source: TensorSource,
        prefix: str,
        progress: Callable[[Progress], None],
    ) -> None:
        self._a = architecture
        self._source = source
        self._prefix = prefix
        self._progress = progress

    def __iter__(self) -> Iterator[Layer]:
        total = len(self._a.layers)
        for index, kind in enumerate(self._a.layers):
            self._progress(Progress(TASK, index, total))
            yield _LayerLoader(self._a, self._source, f"{self._prefix}{index}.", kind).load()
        self._progress(Progress(TASK, total, total))


class _LayerLoader:
    def __init__(
        self, architecture: Architecture, source: TensorSource, prefix: str, kind: LayerKind
    ) -> None:
        self._a = architecture
        self._source = source
        self._prefix = prefix
        self._kind = kind

    def load(self) -> Layer:
        a = self._a
        hidden, queries, keys = a.hidden_size, a.heads * a.head_dim, a.kv_heads * a.head_dim
        norms = [self._norm(name, hidden) if name else None for name in _NORMS.get(a.name, _LLAMA_NORMS)]
        input_norm, output_norm, mlp_norm, mlp_output_norm = norms
        q_norm = k_norm = None
        if a.qk_norm:
            full = a.qk_norm == "full"
            q_norm = self._norm("self_attn.q_norm", queries if full else a.head_dim)
            k_norm = self._norm("self_attn.k_norm", keys if full else a.head_dim)
        parts = {"self_attn.q_proj": queries, "self_attn.k_proj": keys, "self_attn.v_proj": keys}
        return Layer(
            input_norm=input_norm,
            qkv=self._linear("self_attn.qkv_proj", hidden, a.qkv_bias, parts),
            output=self._linear("self_attn.o_proj", queries, a.output_bias, {"self_attn.o_proj": hidden}),
            mlp_norm=mlp_norm,
            mlp=self._experts() if self._kind.sparse else self._mlp("mlp.", a.intermediate_size),
            q_norm=q_norm,
            k_norm=k_norm,
            output_norm=output_norm,
            mlp_output_norm=mlp_output_norm,
        )

    def _mlp(self, module: str, inner: int, names: _MlpNames = _MLP_NAMES) -> Mlp:
        hidden, bias = self._a.hidden_size, self._a.mlp_bias
        gate, up, down = (module + name for name in names)
        return Mlp(
            self._linear(f"{module}gate_up_proj", hidden, bias, {gate: inner, up: inner}),
            self._linear(down, inner, bias, {down: hidden}),
        )

    def _experts(self) -> Experts:
        shape, hidden = self._a.experts, self._a.hidden_size
        assert shape, "a sparse layer has experts"
        module, names = "mlp.", _MLP_NAMES
        if f"{self._prefix}{_MIXTRAL_MODULE}gate.weight" in self._source and self._a.name in _MIXTRAL:
            module, names = _MIXTRAL_MODULE, _MIXTRAL_NAMES
        router = f"{module}gate"
        if f"{self._prefix}{module}experts.gate_up_proj" in self._source:
            experts = self._merged_experts(f"{self._prefix}{module}experts.", shape)
        else:
            experts = tuple(
                self._mlp(f"{module}experts.{index}.", shape.intermediate_size, names)
                for index in range(shape.count)
            )
        shared, gate = shape.shared_intermediate_size, f"{module}shared_expert_gate"
        return Experts(
            router=self._linear(router, hidden, False, {router: shape.count}),
            experts=experts,
            shared=self._mlp(f"{module}shared_expert.", shared) if shared else None,
            shared_gate=self._linear(gate, hidden, False, {gate: 1}) if shared else None,
        )

    def _merged_experts(self, module: str, shape: ExpertShape) -> tuple[Mlp, ...]:
        """Return views of the tensors of all experts, as transformers 5 holds them."""
        hidden, inner = self._a.hidden_size, shape.intermediate_size
        gate_up = self._source.stack([f"{module}gate_up_proj"], (shape.count, 2 * inner, hidden))
        down = self._source.stack([f"{module}down_proj"], (shape.count, hidden, inner))
        return tuple(Mlp(Linear(each), Linear(other)) for each, other in zip(gate_up, down, strict=True))

    def _linear(self, merged: str, inputs: int, bias: bool, outputs: dict[str, int]) -> Linear:
        """Return the linear layers ``outputs`` as one, or ``merged`` if the checkpoint has it as one."""
        total = sum(outputs.values())
        parts = {merged: total} if f"{self._prefix}{merged}.weight" in self._source else outputs
        names, sizes = [self._prefix + name for name in parts], parts.values()
        weight = self._source.matrix([f"{n}.weight" for n in names], *((size, inputs) for size in sizes))
        if not bias:
            return Linear(weight)
        return Linear(weight, self._source.stack([f"{n}.bias" for n in names], *((size,) for size in sizes)))

    def _norm(self, name: str, size: int) -> RMSNorm:
        return _norm(self._a, self._source, f"{self._prefix}{name}.weight", size)


def _norm(a: Architecture, source: TensorSource, name: str, size: int) -> RMSNorm:
    return RMSNorm(source.stack([name], (size,)), a.norm_eps, a.norm_offset)


def _first(source: TensorSource, name: str, prefixes: tuple[str, ...]) -> str:
    """Return the first prefix with which the source has the tensor, or else the first of all."""
    return next((prefix for prefix in prefixes if prefix + name in source), prefixes[0])
