"""Rotary position embeddings (RoPE, arXiv 2104.09864): the frequencies and the rotation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fllm_backends.checkpoints.rope_config import Rope, RopeType


def frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Return the radians per position of each pair of dimensions: [head_dim / 2], float32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    return _FREQUENCIES[rope.rope_type](1.0 / rope.rope_theta**exponents, rope, head_dim)


def amplitude(rope: Rope) -> float:
    """Return the factor of cosine and sine."""
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.rope_type != "yarn":
        return 1.0
    if rope.mscale and rope.mscale_all_dim:
        return _yarn_scale(rope.factor, rope.mscale) / _yarn_scale(rope.factor, rope.mscale_all_dim)
    return _yarn_scale(rope.factor, 1.0)


def rotations(positions: Tensor, inverse_frequencies: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of [tokens] positions: two of [tokens, 1, head_dim / 2], float32."""
    angles = positions.float()[:, None, None] * inverse_frequencies
    return angles.cos() * scale, angles.sin() * scale


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate [tokens, heads, head_dim]; dimension ``i`` is paired with ``i + head_dim / 2``."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def _plain(base: Tensor, rope: Rope, head_dim: int) -> Tensor:  # noqa: ARG001
    return base


def _linear(base: Tensor, rope: Rope, head_dim: int) -> Tensor:  # noqa: ARG001
    return base / rope.factor


def _llama3(base: Tensor, rope: Rope, head_dim: int) -> Tensor:  # noqa: ARG001
    """Scale as Llama 3.1 does: stretch long waves, leave short ones, and blend between them."""
    turns = rope.original_max_position_embeddings * base / (2 * math.pi)
    blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blend = blend.clamp(0, 1)
    return (1 - blend) * base / rope.factor + blend * base


def _yarn(base: Tensor, rope: Rope, head_dim: int) -> Tensor:
    """Scale as YaRN does (arXiv 2309.00071): as Llama 3.1, but blend linearly in the dimension."""

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
    """Divide each frequency by its own divisor, as the conversion of a GGUF file writes it."""
    return base / base.new_tensor(rope.short_factor)


def _yarn_scale(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


_FREQUENCIES: dict[RopeType, Callable[[Tensor, Rope, int], Tensor]] = {
    "default": _plain,
    "dynamic": _plain,  # it stretches only beyond max_position_embeddings, which is the limit
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
