"""Random prompts, which no cache contains."""

from __future__ import annotations

import random
from itertools import islice

# With its leading space, each is one token in most vocabularies.
WORDS = """
apple river stone cloud garden window letter market bridge forest summer winter music paper house light
water green night road table chair door story world horse street ocean island mountain valley field
flower tree bird fish bread sugar salt coffee kitchen mirror picture clock school teacher doctor engine
wheel train ship silver gold iron glass cotton leather candle basket ladder hammer needle pocket button
""".split()  # noqa: SIM905


class Prompts:
    """Generates texts of random words: two texts may share the first word, but hardly ever the first five."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def text(self, words: int) -> str:
        """Return a text of ``words`` words, which is about as many tokens.

        Each word occurs as often as any other, or once more, so texts of one length have as many tokens.
        """
        rounds = -(-words // len(WORDS))
        shuffled = (word for _ in range(rounds) for word in self._random.sample(WORDS, len(WORDS)))
        return " ".join(islice(shuffled, words))

    def texts(self, count: int, words: int) -> list[str]:
        """Return ``count`` texts of ``words`` words each."""
        return [self.text(words) for _ in range(count)]
