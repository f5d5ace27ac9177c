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
FIRST = "The"


class Prompts:
    """Generates texts of random words: two texts share the first word, but hardly ever the first five."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def text(self, words: int) -> str:
        """Return a text of ``words`` words, which is about as many tokens.

        Texts of one length have the same number of tokens, or nearly. The first word has no leading space, so
        it is always the same; after it, each word occurs as often as any other, or once more.
        """
        rounds = -(-words // len(WORDS))
        shuffled = (word for _ in range(rounds) for word in self._random.sample(WORDS, len(WORDS)))
        return " ".join((FIRST, *islice(shuffled, words - 1)))

    def texts(self, count: int, words: int) -> list[str]:
        """Return ``count`` texts of ``words`` words each."""
        return [self.text(words) for _ in range(count)]
