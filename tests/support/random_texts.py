"""Generate texts that a grammar allows from random tokens."""

from __future__ import annotations

import random
from array import array
from typing import Any

import numpy as np

from fllm.structured_output.interfaces import CompiledGrammar, Vocabulary

CLOSING = (b'"', b"}", b"]", *(str(digit).encode() for digit in range(10)))


class Walker:
    """Chooses random allowed tokens; after a while it prefers tokens that may close something."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokens = vocabulary.tokens
        self._words = vocabulary.bitmask_size
        self._ends = list(vocabulary.eos_token_ids)
        self._lengths = np.array([len(token) for token in vocabulary.tokens])
        self._ranks = np.array([self._rank(token) for token in vocabulary.tokens])

    def text(
        self, grammar: CompiledGrammar, seed: int, *, free: int = 20, max_tokens: int = 300
    ) -> bytes | None:
        """Return a complete text of the grammar, or ``None`` if it does not end; fail at a dead end."""
        draw, matcher, text = random.Random(seed), grammar.matcher(), b""
        mask = array("i", bytes(4 * self._words))
        for step in range(max_tokens):
            matcher.fill_bitmask(memoryview(mask))
            bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
            bits[self._ends] = 0
            allowed = np.flatnonzero(bits)
            if matcher.is_accepting and (not len(allowed) or step > free or draw.random() < 0.3):
                return text
            assert len(allowed), f"nothing may follow {text!r}"
            best = self._ranks[allowed].min()
            if step > 3 * free and (best >= CLOSING.index(b"0") or draw.random() < 0.5):
                # What must still come is often one character among many.
                short = allowed[self._lengths[allowed] == 1]
                allowed = short if len(short) else allowed
            elif step > free and draw.random() < 0.7:
                allowed = allowed[self._ranks[allowed] == best]
            token = int(draw.choice(allowed))
            assert matcher.accept_token(token)
            text += self._tokens[token]
        return None

    def _rank(self, token: bytes) -> int:
        return CLOSING.index(token[:1]) if token[:1] in CLOSING else len(CLOSING)


def rejected_at(grammar: CompiledGrammar, vocabulary: Vocabulary, text: str) -> str | None:
    """Return the prefix after which the grammar rejects the text, or ``None`` if it accepts all of it."""
    matcher, written = grammar.matcher(), text.encode()
    for position in range(len(written)):
        if not matcher.accept_token(vocabulary.tokens.index(written[position : position + 1])):
            return written[:position].decode(errors="replace")
    return None if matcher.is_accepting else text


def certainly_fits(text: str, schema: Any) -> bool:
    """Return whether its strings are certainly short enough: an escape may count twice."""
    return "\\" not in text or "maxLength" not in str(schema)
