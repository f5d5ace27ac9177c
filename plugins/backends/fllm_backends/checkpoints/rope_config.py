"""Read the parameters of rotary position embeddings from a model's configuration."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from fllm.errors import ModelError

RopeType = Literal["default", "dynamic", "linear", "llama3", "yarn", "longrope"]
"""How the frequencies are scaled for contexts longer than those of the training."""

_REQUIRES_FACTOR = ("linear", "llama3", "yarn")


class Rope(Struct, frozen=True, kw_only=True):
    """The keys of ``rope_parameters`` (transformers 5), or ``rope_theta`` and ``rope_scaling`` (earlier)."""

    rope_theta: float = 10000.0
    rope_type: RopeType = "default"
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    """Context length of the training, before the extension."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float | None = None
    beta_slow: float | None = None
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()
    partial_rotary_factor: float = 1.0

    def max_positions(self, declared: int) -> int:
        """Return the context length. Qwen's YaRN configurations declare the one before the extension."""
        if self.rope_type == "yarn":
            return max(declared, int(self.original_max_position_embeddings * self.factor))
        return declared


def read_rope(config: dict[str, Any], max_positions: int) -> Rope:
    """Read the rotary part of a ``config.json``. Raise `ModelError` if it is unknown or incomplete."""
    raw = config.get("rope_parameters") or config.get("rope_scaling") or {}
    values = {"rope_theta": config.get("rope_theta"), "original_max_position_embeddings": max_positions}
    values |= {"rope_type": raw.get("type")} | raw  # `type` is an older name of `rope_type`
    values = {key: value for key, value in values.items() if value is not None}
    kind = values.get("rope_type", "default")
    if kind not in get_args(RopeType):
        raise ModelError(f"rope type {kind!r} is not supported; supported: {', '.join(get_args(RopeType))}")
    try:
        rope = msgspec.convert(values, Rope, strict=False)
    except msgspec.ValidationError as error:
        raise ModelError(f"config.json: invalid rope parameters: {error}") from error
    _check(rope, values)
    return rope


def _check(rope: Rope, values: dict[str, Any]) -> None:
    if rope.partial_rotary_factor != 1.0:
        raise ModelError("config.json: partial_rotary_factor is not supported: heads are rotated completely")
    if rope.rope_type in _REQUIRES_FACTOR and "factor" not in values:
        raise ModelError(f"config.json: the rope type {rope.rope_type!r} needs a factor")
    if rope.rope_type == "longrope" and (rope.short_factor != rope.long_factor or not rope.attention_factor):
        raise ModelError(
            "config.json: longrope factors that depend on the length of the text are not supported"
        )
