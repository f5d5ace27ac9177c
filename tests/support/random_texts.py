"""Texts that a grammar allows, made of random tokens."""

from __future__ import annotations

import random
from array import array
from typing import Any

import numpy as np

from fllm.structured_output.interfaces import CompiledGrammar, Vocabulary

CLOSING = (b'"', b"}", b"]", *(str(digit).encode() for digit in range(10)))


class Walker:
    """Walks through the tokens of a vocabulary; after a while it prefers those that may close something."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokens = vocabulary.tokens
        self._words = vocabulary.bitmask_size
        self._ends = list(vocabulary.eos_token_ids)
        self._ranks = np.array([self._rank(token) for token in vocabulary.tokens])

    def text(self, grammar: CompiledGrammar, seed: int, *, free: int = 20, most: int = 300) -> bytes | None:
        """A whole text of the grammar, ``None`` if it does not come to an end; dead ends are an error."""
        draw, matcher, text = random.Random(seed), grammar.matcher(), b""
        mask = array("i", bytes(4 * self._words))
        for step in range(most):
            matcher.fill_bitmask(memoryview(mask))
            bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
            bits[self._ends] = 0
            allowed = np.flatnonzero(bits)
            if matcher.is_accepting and (not len(allowed) or step > free or draw.random() < 0.3):
                return text
            assert len(allowed), f"nothing may follow {text!r}"
            if step > free and draw.random() < 0.7:
                allowed = allowed[self._ranks[allowed] == self._ranks[allowed].min()]
            token = int(draw.choice(allowed))
            assert matcher.accept_token(token)
            text += self._tokens[token]
        return None

    def _rank(self, token: bytes) -> int:
        return CLOSING.index(token[:1]) if token[:1] in CLOSING else len(CLOSING)


def refused_at(grammar: CompiledGrammar, vocabulary: Vocabulary, text: str) -> str | None:
    """The part of a text behind which the grammar does not go on; ``None`` if it takes the whole."""
    matcher, written = grammar.matcher(), text.encode()
    for at in range(len(written)):
        if not matcher.accept_token(vocabulary.tokens.index(written[at : at + 1])):
            return written[:at].decode(errors="replace")
    return None if matcher.is_accepting else text


def in_measure(text: str, schema: Any) -> bool:
    """Whether its strings are surely short enough: an escape may count twice."""
    return "\\" not in text or "maxLength" not in str(schema)
