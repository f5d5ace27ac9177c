"""Read the parameters of rotary position embeddings from a model's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from msgspec import Meta, Struct
from msgspec.structs import replace

from fllm.errors import ModelError
from fllm_backends.checkpoints.json_files import convert

RopeType = Literal["default", "dynamic", "linear", "llama3", "yarn", "longrope"]
"""How the frequencies are scaled for contexts longer than those of the training."""

Factor: TypeAlias = Annotated[float, Meta(gt=0, le=1e6)]

LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})
"""The types of layers that ``layer_types`` and nested ``rope_parameters`` name."""
_REQUIRES_FACTOR = ("linear", "dynamic", "llama3", "yarn")
_ALIASES = {"su": "longrope"}
"""Older names of rope types."""


class UnsupportedModelError(ModelError):
    """A valid configuration that our own decoders do not support."""


class Rope(Struct, frozen=True, kw_only=True):
    """The keys of ``rope_parameters`` (transformers 5), or ``rope_theta`` and ``rope_scaling`` (earlier)."""

    rope_theta: Annotated[float, Meta(gt=1, le=1e15)] = 10000.0
    rope_type: RopeType = "default"
    factor: Factor = 1.0
    original_max_position_embeddings: Annotated[int, Meta(ge=0, le=2**31)] = 0
    """Context length of the training, before the extension."""
    low_freq_factor: Factor = 1.0
    high_freq_factor: Factor = 4.0
    beta_fast: Factor | None = None
    beta_slow: Factor | None = None
    truncate: bool = True
    attention_factor: Factor | None = None
    mscale: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    mscale_all_dim: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    short_factor: tuple[Factor, ...] = ()
    long_factor: tuple[Factor, ...] = ()
    partial_rotary_factor: Annotated[float, Meta(gt=0, le=1)] = 1.0

    def __post_init__(self) -> None:
        """Raise `ValueError` if parameters contradict each other."""
        if self.rope_type == "llama3" and self.low_freq_factor >= self.high_freq_factor:
            raise ValueError("low_freq_factor must be less than high_freq_factor")
        if self.rope_type == "longrope" and self.original_max_position_embeddings < 2:
            raise ValueError("longrope needs original_max_position_embeddings of at least 2")

    @property
    def switch_length(self) -> int | None:
        """Number of tokens beyond which a sequence has other frequencies. ``None``: there is none."""
        switches = self.rope_type == "longrope" and self.short_factor != self.long_factor
        switches |= self.rope_type == "dynamic" and self.factor > 1
        return self.original_max_position_embeddings if switches else None

    def max_positions(self, declared: int) -> int:
        """Return the context length, of which configurations declare the one before the extension.

        vLLM multiplies it in the same way. YaRN's factor refers to its own original length.
        """
        if self.rope_type == "yarn":
            return max(declared, int(self.original_max_position_embeddings * self.factor))
        if self.rope_type in ("linear", "dynamic"):
            return max(declared, int(declared * self.factor))
        return declared


def read_ropes(
    config: dict[str, Any], max_positions: int, layer_types: Sequence[str], file: Path
) -> dict[str, Rope]:
    """Return the rotary part of a ``config.json`` for each type of layer.

    ``rope_parameters`` may be nested by layer type. Raise `ModelError` if they are unknown or incomplete.
    """
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    raw = convert(scaling, dict[str, Any], f"{file}: invalid rope parameters")
    types = dict.fromkeys(layer_types)
    if not raw.keys() & LAYER_TYPES:
        return dict.fromkeys(types, _read(raw, config, max_positions, file))
    if missing := types.keys() - raw.keys():
        raise ModelError(f"{file}: rope_parameters lack the layer type {sorted(missing)[0]!r}")
    return {
        name: _read(
            convert(raw[name] or {}, dict[str, Any], f"{file}: invalid rope parameters"),
            config,
            max_positions,
            file,
        )
        for name in types
    }


def _read(raw: dict[str, Any], config: dict[str, Any], max_positions: int, file: Path) -> Rope:
    values = {name: config.get(name) for name in ("rope_theta", "partial_rotary_factor")}
    values["original_max_position_embeddings"] = max_positions
    values |= {"rope_type": raw.get("type")} | raw  # `type` is an older name of `rope_type`
    kind = values["rope_type"] or "default"
    kind = values["rope_type"] = _ALIASES.get(kind, kind) if isinstance(kind, str) else kind
    original = config.get("original_max_position_embeddings")
    if original and kind != "dynamic":
        values["original_max_position_embeddings"] = original  # Phi-3 has it outside of rope_scaling
    if kind == "dynamic":
        values["original_max_position_embeddings"] = max_positions
    values = {key: value for key, value in values.items() if value is not None}
    if kind not in get_args(RopeType):
        known = ", ".join(get_args(RopeType))
        raise UnsupportedModelError(f"{file}: rope type {kind!r} is not supported; supported: {known}")
    rope = convert(values, Rope, f"{file}: invalid rope parameters")
    if kind in _REQUIRES_FACTOR and "factor" not in values:
        raise ModelError(f"{file}: the rope type {kind!r} needs a factor")
    if kind == "longrope" and "factor" not in values:
        return replace(rope, factor=max_positions / rope.original_max_position_embeddings)
    return rope
