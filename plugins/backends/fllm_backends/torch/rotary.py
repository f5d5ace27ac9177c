"""Rotary position embeddings (RoPE, arXiv 2104.09864): the frequencies and the rotation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from fllm_backends.checkpoints.rope_config import Rope, RopeType


class RotaryEmbedding:
    """The frequencies of one `Rope`, which may depend on the length of the sequence."""

    def __init__(self, rope: Rope, rotary_dim: int, device: torch.device) -> None:
        self._short = frequencies(rope, rotary_dim).to(device)
        self._long = frequencies(rope, rotary_dim, long=True).to(device) if rope.switch_length else None
        self._switch_length = rope.switch_length
        self._amplitude = amplitude(rope)

    def rotations(self, positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines of [tokens] positions in sequences of [tokens] lengths.

        Both are [tokens, 1, rotary_dim / 2], float32.
        """
        if self._long is None or self._switch_length is None:
            return rotations(positions, self._short, self._amplitude)
        is_long = (lengths > self._switch_length)[:, None, None]
        return rotations(positions, torch.where(is_long, self._long, self._short), self._amplitude)


def frequencies(rope: Rope, rotary_dim: int, *, long: bool = False) -> Tensor:
    """Return the radians per position of each pair of dimensions: [rotary_dim / 2], float32.

    ``long``: those of sequences with more than `Rope.switch_length` tokens.
    """
    exponents = torch.arange(0, rotary_dim, 2, dtype=torch.int64).float() / rotary_dim
    scale = (_LONG_FREQUENCIES if long else _FREQUENCIES)[rope.rope_type]
    return scale(1.0 / rope.rope_theta**exponents, rope, rotary_dim)


def amplitude(rope: Rope) -> float:
    """Return the factor of cosine and sine."""
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.rope_type == "longrope" and rope.factor > 1:
        return math.sqrt(1 + math.log(rope.factor) / math.log(rope.original_max_position_embeddings))
    if rope.rope_type != "yarn":
        return 1.0
    if rope.mscale and rope.mscale_all_dim:
        return _yarn_scale(rope.factor, rope.mscale) / _yarn_scale(rope.factor, rope.mscale_all_dim)
    return _yarn_scale(rope.factor, 1.0)


def rotations(positions: Tensor, inverse_frequencies: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of [tokens] positions: two of [tokens, 1, rotary_dim / 2], float32."""
    angles = positions.float()[:, None, None] * inverse_frequencies
    return angles.cos() * scale, angles.sin() * scale


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor, *, interleaved: bool = False) -> Tensor:
    """Rotate the first dimensions of [tokens, heads, head_dim], two for each cosine; leave the others.

    Dimension ``i`` is paired with ``i + rotary_dim / 2``, or with its neighbour if ``interleaved``.
    """
    rotary_dim = 2 * cosine.shape[-1]
    rotated, rest = heads[..., :rotary_dim], heads[..., rotary_dim:]
    first, second = (rotated[..., ::2], rotated[..., 1::2]) if interleaved else rotated.chunk(2, dim=-1)
    pairs = first * cosine - second * sine, second * cosine + first * sine
    result = torch.stack(pairs, dim=-1).flatten(-2) if interleaved else torch.cat(pairs, dim=-1)
    return torch.cat((result, rest), dim=-1) if rest.shape[-1] else result


def _plain(base: Tensor, rope: Rope, rotary_dim: int) -> Tensor:  # noqa: ARG001
    return base


def _linear(base: Tensor, rope: Rope, rotary_dim: int) -> Tensor:  # noqa: ARG001
    return base / rope.factor


def _llama3(base: Tensor, rope: Rope, rotary_dim: int) -> Tensor:  # noqa: ARG001
    """Scale as Llama 3.1 does: stretch long waves, leave short ones, and blend between them."""
    turns = rope.original_max_position_embeddings * base / (2 * math.pi)
    blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blend = blend.clamp(0, 1)
    return (1 - blend) * base / rope.factor + blend * base


def _yarn(base: Tensor, rope: Rope, rotary_dim: int) -> Tensor:
    """Scale as YaRN does (arXiv 2309.00071): as Llama 3.1, but blend linearly in the dimension."""

    def dimension(turns: float) -> float:
        waves = rope.original_max_position_embeddings / (turns * 2 * math.pi)
        return rotary_dim * math.log(waves) / (2 * math.log(rope.rope_theta))

    low, high = dimension(rope.beta_fast or 32), dimension(rope.beta_slow or 1)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    ramp = (torch.arange(rotary_dim // 2).float() - low) / max(high - low, 0.001)
    stretched = ramp.clamp(0, 1)
    return base / rope.factor * stretched + base * (1 - stretched)


def _dynamic(base: Tensor, rope: Rope, rotary_dim: int) -> Tensor:
    """Raise theta as NTK scaling does, by the whole extended context, as vLLM does.

    transformers raises it again with each token, which would change the keys that are cached.
    """
    extended = rope.factor**2 - (rope.factor - 1)
    exponents = torch.arange(0, rotary_dim, 2).float() / (rotary_dim - 2)
    return base / extended**exponents


def _longrope_short(base: Tensor, rope: Rope, rotary_dim: int) -> Tensor:  # noqa: ARG001
    """Divide each frequency by its own factor (LongRoPE, arXiv 2402.13753)."""
    return base / base.new_tensor(rope.short_factor)


def _longrope_long(base: Tensor, rope: Rope, rotary_dim: int) -> Tensor:  # noqa: ARG001
    return base / base.new_tensor(rope.long_factor)


def _yarn_scale(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


_Scale: TypeAlias = Callable[[Tensor, Rope, int], Tensor]
_FREQUENCIES: dict[RopeType, _Scale] = {
    "default": _plain,
    "dynamic": _plain,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope_short,
}
_LONG_FREQUENCIES: dict[RopeType, _Scale] = {"dynamic": _dynamic, "longrope": _longrope_long}
