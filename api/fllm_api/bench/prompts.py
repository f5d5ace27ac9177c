"""Prompts that no request had before."""

from __future__ import annotations

import random

# Each is one token, with its space, in the vocabularies of most models.
WORDS = """
apple river stone cloud garden window letter market bridge forest summer winter music paper house light
water green night road table chair door story world horse street ocean island mountain valley field
flower tree bird fish bread sugar salt coffee kitchen mirror picture clock school teacher doctor engine
wheel train ship silver gold iron glass cotton leather candle basket ladder hammer needle pocket button
""".split()  # noqa: SIM905


class Prompts:
    """Texts of random words; two of them share a first word at times, and hardly ever five."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def words(self, count: int) -> str:
        """So many words, and about as many tokens."""
        return " ".join(self._random.choices(WORDS, k=count))

    def several(self, prompts: int, count: int) -> list[str]:
        """So many texts of ``count`` words."""
        return [self.words(count) for _ in range(prompts)]
