"""Read the parameters of rotary position embeddings from a model's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from msgspec import Meta, Struct

from fllm.errors import ModelError
from fllm_backends.checkpoints.json_files import convert

RopeType = Literal["default", "dynamic", "linear", "llama3", "yarn", "longrope"]
"""How the frequencies are scaled for contexts longer than those of the training."""

Factor: TypeAlias = Annotated[float, Meta(gt=0, le=1e6)]

_REQUIRES_FACTOR = ("linear", "llama3", "yarn")


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
    partial_rotary_factor: float = 1.0

    def __post_init__(self) -> None:
        """Raise `ValueError` if the factors of Llama 3 leave nothing to blend."""
        if self.rope_type == "llama3" and self.low_freq_factor >= self.high_freq_factor:
            raise ValueError("low_freq_factor must be less than high_freq_factor")

    def max_positions(self, declared: int) -> int:
        """Return the context length. Qwen's YaRN configurations declare the one before the extension."""
        if self.rope_type == "yarn":
            return max(declared, int(self.original_max_position_embeddings * self.factor))
        return declared


def read_rope(config: dict[str, Any], max_positions: int, file: Path) -> Rope:
    """Read the rotary part of a ``config.json``. Raise `ModelError` if it is unknown or incomplete."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    raw = convert(scaling, dict[str, Any], f"{file}: invalid rope parameters")
    values = {"rope_theta": config.get("rope_theta"), "original_max_position_embeddings": max_positions}
    values |= {"rope_type": raw.get("type")} | raw  # `type` is an older name of `rope_type`
    values = {key: value for key, value in values.items() if value is not None}
    kind = values.get("rope_type", "default")
    if kind not in get_args(RopeType):
        known = ", ".join(get_args(RopeType))
        raise ModelError(f"{file}: rope type {kind!r} is not supported; supported: {known}")
    rope = convert(values, Rope, f"{file}: invalid rope parameters")
    _check(rope, values, file)
    return rope


def _check(rope: Rope, values: dict[str, Any], file: Path) -> None:
    if rope.partial_rotary_factor != 1.0:
        raise ModelError(f"{file}: partial_rotary_factor is not supported: heads are rotated completely")
    if rope.rope_type in _REQUIRES_FACTOR and "factor" not in values:
        raise ModelError(f"{file}: the rope type {rope.rope_type!r} needs a factor")
    if rope.rope_type == "longrope" and (rope.short_factor != rope.long_factor or not rope.attention_factor):
        raise ModelError(f"{file}: longrope factors that depend on the length of the text are not supported")
