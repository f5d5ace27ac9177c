"""Rotary embeddings of a transformers model whose factors depend on the length of the sequence (LongRoPE)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fllm_backends.torch.transformers_lm.paged_attention import PagedAttention


def select_factors_by_row(decoder: nn.Module, attention: PagedAttention) -> None:
    """Let the LongRoPE modules of a decoder select their factors by the length of each sequence.

    transformers' code selects those of a whole batch by its largest position, so that a row would change the
    others, and the first chunks of a long prompt would differ from its last.
    """
    for name, module in list(decoder.named_modules()):
        if getattr(module, "rope_type", None) == "longrope":
            parent, _, child = name.rpartition(".")
            setattr(decoder.get_submodule(parent), child, _RopeByLength(module, attention))


class _RopeByLength(nn.Module):
    def __init__(self, rope: Any, attention: PagedAttention) -> None:
        super().__init__()
        self.rope = rope
        self._attention = attention
        self._switch_length: int = rope.config.rope_parameters["original_max_position_embeddings"]

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines of [rows, tokens] positions: two of [rows, tokens, dim]."""
        lengths = self._attention.sequence_lengths
        if lengths is None or not bool((is_long := lengths > self._switch_length).any()):
            return self._run(x, position_ids)
        longest = position_ids.new_full((position_ids.shape[0], 1), self._switch_length)
        long = self._run(x, torch.cat([position_ids, longest], -1))
        is_long = is_long.view(position_ids.shape)
        short = self._run(x, position_ids.masked_fill(is_long, 0))
        tokens = position_ids.shape[1]
        cosine, sine = (
            torch.where(is_long[..., None], of_long[:, :tokens], of_short)
            for of_long, of_short in zip(long, short, strict=True)
        )
        return cosine, sine

    def _run(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Run the module, which selects the factors by the largest position."""
        cosine, sine = self.rope(x, position_ids)
        return cosine, sine
