"""Prompts of an exact number of tokens on a server whose tokenizer and chat template are unknown."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from fllm_bench.client import Client, Prompt
from fllm_bench.prompts import WORDS
from fllm_bench.request_log import RequestLog


class Size(Struct, frozen=True):
    """How many tokens a server counts in a prompt: a number per word, and what surrounds the words."""

    per_word: float
    around: float

    def tokens(self, words: int) -> float:
        """Return the tokens of a prompt with this many words."""
        return self.around + self.per_word * words

    def words(self, tokens: float) -> int:
        """Return how many words a prompt of this many tokens has; less than 1 if not even one fits."""
        return round((tokens - self.around) / self.per_word)


async def measure_size(client: Client, log: RequestLog, make_prompt: Callable[[int], Prompt]) -> Size | None:
    """Measure the size of the prompts that ``make_prompt`` makes from a number of words.

    Two short prompts are sent, with each word once and twice; ``log`` receives the requests. Return None if
    one fails. A server that reports no ``usage`` is taken to count each word as a token.
    """
    once = await log.send(client, make_prompt(1 + len(WORDS)), 1)
    twice = await log.send(client, make_prompt(1 + 2 * len(WORDS)), 1) if once else None
    if not once or not twice:
        return None
    per_word = (twice.prompt_tokens - once.prompt_tokens) / len(WORDS)
    if per_word <= 0:
        return Size(per_word=1.0, around=0.0)
    return Size(per_word=per_word, around=once.prompt_tokens - per_word * (1 + len(WORDS)))
