"""Unpack integers of a few bits from larger ones."""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 32


def unpack_words(words: Tensor, bits: int, count: int) -> Tensor:
    """Return the ``count`` unsigned integers of ``bits`` bits in each row of [rows, words] int32.

    The words are one stream of bits that begins with the lowest: [rows, count] int32. So GPTQ packs 2, 3, 4
    and 8 bits.
    """
    first = torch.arange(count) * bits
    wide = words.long() & (2**_WORD - 1)
    low = wide[:, first // _WORD] >> first % _WORD
    if _WORD % bits:
        last = torch.clamp(first // _WORD + 1, max=words.shape[1] - 1)
        low |= wide[:, last] << (_WORD - first % _WORD)
    values: Tensor = low & (2**bits - 1)
    return values.int()


def unpack_whole_words(words: Tensor, bits: int, count: int) -> Tensor:
    """Return the integers of [rows, words] int32 of which each word holds as many whole ones as it can.

    So compressed-tensors packs: [rows, count] int32.
    """
    shifts = torch.arange(_WORD // bits, dtype=torch.int32) * bits
    values: Tensor = (words[..., None] >> shifts) & (2**bits - 1)
    return values.flatten(1)[:, :count]


def unpack_nibbles(values: Tensor) -> Tensor:
    """Return the two halves of each byte along the last dimension, the low one first: int64."""
    return torch.stack([values & 15, values >> 4], -1).flatten(-2).long()
