"""Formats of packed weights.

Sixteen rows make a *panel*. A panel is a sequence of blocks, each with the values of some groups of 32
columns, then their scales. So the whole matrix is one stream, in the order in which the kernels read it.

The values of a group, 512 of b bits, take 64 b bytes. They are divided into quads, four consecutive ones of
each row. With 8 bits, the quads follow each other. Otherwise the low 4 bits of the quads 2 i and 2 i + 1
share 64 bytes, and the remaining bits of as many quads as fit share 64 bytes after those.

A weight is ``minimum + scale * value``. If a format has no minima, the weights are symmetric: the minimum is
``-scale * 2 ** (bits - 1)``.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

GROUP = 32
"""Columns of a group."""
PANEL = 16
"""Rows of a panel."""


class Scales(Enum):
    """What scales the values of a block. All start with ``PANEL`` numbers, one for each row."""

    GROUP = "group"
    """A block is one group. It has a scale in float16, then a minimum if the format has minima."""
    ZEROS = "zeros"
    """A block is one group. It has a scale in float16 and a byte, the value that stands for 0."""
    NESTED = "nested"
    """A block is 8 groups, as in GGUF's Q4_K and Q5_K.

    Each has a scale and a minimum of 6 bits. A byte holds the low 4 bits of both. An int32 holds the high
    bits of all groups: 2 bits of the scale, then 2 of the minimum, for each group. After them comes what they
    are multiplied with, in float16, the second one negative.
    """
    HALVES = "halves"
    """A block is 8 groups, as in GGUF's Q6_K.

    Half a group, 16 columns, has a scale in int8. After all 16 of them comes a float16, by which they are
    multiplied.
    """


class Format(NamedTuple):
    """How the weights of a panel are stored."""

    name: str
    bits: int
    """Bits of a value: 4, 5, 6 or 8."""
    scales: Scales = Scales.GROUP
    minima: bool = False

    @property
    def groups(self) -> int:
        """Groups of a block."""
        return 1 if self.scales in (Scales.GROUP, Scales.ZEROS) else 8

    @property
    def value_bytes(self) -> int:
        """Bytes of the values of a group."""
        return self.bits * GROUP * PANEL // 8

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        scales = {
            Scales.GROUP: 2 * PANEL * (1 + self.minima),
            Scales.ZEROS: (2 + 1) * PANEL,
            Scales.NESTED: (self.groups + 4 + 2 * 2) * PANEL,
            Scales.HALVES: (2 * self.groups + 2) * PANEL,
        }
        return self.groups * self.value_bytes + scales[self.scales]

    @property
    def bits_per_weight(self) -> float:
        """Bits of memory that a weight takes."""
        return 8 * self.block_bytes / (self.groups * GROUP * PANEL)


Q4_0 = Format("Q4_0", 4)
Q4_1 = Format("Q4_1", 4, minima=True)
Q5_0 = Format("Q5_0", 5)
Q5_1 = Format("Q5_1", 5, minima=True)
Q8_0 = Format("Q8_0", 8)
Q8_1 = Format("Q8_1", 8, minima=True)
Q4_K = Format("Q4_K", 4, Scales.NESTED, minima=True)
Q5_K = Format("Q5_K", 5, Scales.NESTED, minima=True)
Q6_K = Format("Q6_K", 6, Scales.HALVES)
Q3_K = Format("Q3_K", 4, Scales.HALVES)
INT4 = Format("int4", 4, Scales.ZEROS, minima=True)
FORMATS = (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q4_K, Q5_K, Q6_K, Q3_K, INT4)
"""All formats, most named after the quantization of GGUF whose weights they hold without rounding.

``int4`` holds those of GPTQ and AWQ.
"""
