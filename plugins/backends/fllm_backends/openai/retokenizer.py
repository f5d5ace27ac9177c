"""Convert text back to token ids, for servers that return only text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from fllm.pipeline.detokenizer import CONTEXT_TOKENS
from fllm.tokenizer import Tokenizer

_ANCHORS = ("\n", "a", ".")
"""Texts to encode a piece after, because many tokenizers add a space before the first word of a text."""


class ByteAlphabet:
    """The tokens of single bytes, which can encode every text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def ids(self) -> dict[int, int]:
        """Token ids by byte."""
        if not self._tokenizer.byte_level:
            return {byte: token_id for token_id, byte in self._tokenizer.byte_tokens.items()}
        from tokenizers.pre_tokenizers import ByteLevel

        token_ids = (self._tokenizer.token_to_id(character) for character in ByteLevel.alphabet())
        return {self._tokenizer.token_bytes(each)[0]: each for each in token_ids if each is not None}

    def encode(self, text: str) -> list[int] | None:
        """Return one token per byte; None if a byte has no token."""
        ids = [self.ids.get(byte) for byte in text.encode()]
        return None if None in ids else [each for each in ids if each is not None]


class Retokenizer:
    """Converts pieces of text to token ids that decode, after ``context``, to exactly that text.

    The ids may differ from those that the model sampled: a word that arrives in two pieces may become two
    tokens but was one. Text that equals a special token becomes that token.
    """

    def __init__(self, tokenizer: Tokenizer, alphabet: ByteAlphabet, context: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._alphabet = alphabet
        self._window = self._window_of(context)

    def feed(self, text: str) -> list[int]:
        """Return the token ids of the next piece."""
        if not text:
            return []
        ids = next((ids for ids in self._candidates(text) if self._decodes_to(ids, text)), None)
        if ids is None:  # the vocabulary can't encode it
            ids = self._tokenizer.encode(text, add_special_tokens=False)
        self._window = self._window_of([*self._window, *ids])
        return ids

    def _candidates(self, text: str) -> Iterator[list[int]]:
        yield self._tokenizer.encode(text, add_special_tokens=False)
        for anchor in _ANCHORS:
            before = self._tokenizer.encode(anchor, add_special_tokens=False)
            both = self._tokenizer.encode(anchor + text, add_special_tokens=False)
            if both[: len(before)] == before:
                yield both[len(before) :]
        if ids := self._alphabet.encode(text):
            yield ids

    def _decodes_to(self, ids: list[int], text: str) -> bool:
        if self._tokenizer.byte_level:
            return b"".join(map(self._tokenizer.token_bytes, ids)) == text.encode()
        before = self._decode(self._window)
        return self._decode([*self._window, *ids]) == before + text

    def _window_of(self, ids: Sequence[int]) -> list[int]:
        """Return the last few tokens, from the start of a character: a part would corrupt the text."""
        start = max(len(ids) - CONTEXT_TOKENS, 0)
        while start > 0 and 0x80 <= self._tokenizer.byte_tokens.get(ids[start], 0) < 0xC0:
            start -= 1
        return list(ids[start:])

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)
