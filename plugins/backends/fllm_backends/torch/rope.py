"""Rotary position embeddings: which frequencies a configuration asks for, and the rotation itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from fllm.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


class Rope(Struct, frozen=True, kw_only=True):
    """The keys of ``rope_parameters`` (transformers 5) or ``rope_scaling`` beside ``rope_theta`` (before)."""

    rope_theta: float = 10000.0
    rope_type: str = "default"
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    """What the model was trained on before its context was extended."""
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
        """The context; Qwen's YaRN configurations go on declaring the one before the extension."""
        if self.rope_type == "yarn":
            return max(declared, int(self.original_max_position_embeddings * self.factor))
        return declared


def read_rope(config: dict[str, Any], max_positions: int) -> Rope:
    """Read the rotary part of a ``config.json``; raises `ModelError` for a type that is not known."""
    raw = config.get("rope_parameters") or config.get("rope_scaling") or {}
    given = {"rope_theta": config.get("rope_theta"), "original_max_position_embeddings": max_positions}
    given |= {"rope_type": raw.get("type")} | raw  # `type` is the name before `rope_type`
    try:
        rope = msgspec.convert({k: v for k, v in given.items() if v is not None}, Rope, strict=False)
    except msgspec.ValidationError as error:
        raise ModelError(f"config.json: the rope parameters are not understood: {error}") from error
    if rope.rope_type not in _FREQUENCIES:
        raise ModelError(f"rope type {rope.rope_type!r} is not known; {', '.join(_FREQUENCIES)} are")
    if rope.partial_rotary_factor != 1.0:
        raise ModelError("a rotation of only a part of each head (partial_rotary_factor) is not known")
    if rope.rope_type in _STRETCHED and "factor" not in raw:
        raise ModelError(f"config.json: the rope type {rope.rope_type!r} needs a factor")
    if rope.rope_type == "longrope" and (rope.short_factor != rope.long_factor or not rope.attention_factor):
        raise ModelError("a longrope whose factors change with the length of the text is not known")
    return rope


def frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Radians per position for each pair of dimensions: [head_dim / 2], float32."""
    import torch

    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    return _FREQUENCIES[rope.rope_type](1.0 / rope.rope_theta**exponents, rope, head_dim)


def amplitude(rope: Rope) -> float:
    """What cosine and sine are multiplied with."""
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.rope_type != "yarn":
        return 1.0
    if rope.mscale and rope.mscale_all_dim:
        return _yarn_scale(rope.factor, rope.mscale) / _yarn_scale(rope.factor, rope.mscale_all_dim)
    return _yarn_scale(rope.factor, 1.0)


def rotations(positions: Tensor, inverse_frequencies: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines for [tokens] positions: two of [tokens, 1, head_dim / 2], float32."""
    angles = positions.float()[:, None, None] * inverse_frequencies
    return angles.cos() * scale, angles.sin() * scale


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate [tokens, heads, head_dim]; dimension i is paired with i + head_dim / 2."""
    import torch

    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def _plain(base: Tensor, rope: Rope, head_dim: int) -> Tensor:  # noqa: ARG001
    return base


def _linear(base: Tensor, rope: Rope, head_dim: int) -> Tensor:  # noqa: ARG001
    return base / rope.factor


def _llama3(base: Tensor, rope: Rope, head_dim: int) -> Tensor:  # noqa: ARG001
    """Llama 3.1: long waves are stretched, short ones are left, and those between are blended."""
    turns = rope.original_max_position_embeddings * base / (2 * math.pi)
    blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blend = blend.clamp(0, 1)
    return (1 - blend) * base / rope.factor + blend * base


def _yarn(base: Tensor, rope: Rope, head_dim: int) -> Tensor:
    """YaRN (arXiv 2309.00071): the same, but the blend is linear in the dimension."""
    import torch

    def dimension(turns: float) -> float:
        waves = rope.original_max_position_embeddings / (turns * 2 * math.pi)
        return head_dim * math.log(waves) / (2 * math.log(rope.rope_theta))

    low, high = dimension(rope.beta_fast or 32), dimension(rope.beta_slow or 1)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = (torch.arange(head_dim // 2).float() - low) / max(high - low, 0.001)
    stretched = ramp.clamp(0, 1)
    return base / rope.factor * stretched + base * (1 - stretched)


def _longrope(base: Tensor, rope: Rope, head_dim: int) -> Tensor:  # noqa: ARG001
    """A divisor for each pair of dimensions: what the conversion of a GGUF file writes."""
    return base / base.new_tensor(rope.short_factor)


def _yarn_scale(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


_FREQUENCIES = {
    "default": _plain,
    "dynamic": _plain,  # it stretches only beyond max_position_embeddings, where nobody gets
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
_STRETCHED = ("linear", "llama3", "yarn")
