"""Text back to token ids: for servers that answer with text alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from fllm.pipeline.detokenizer import CONTEXT_TOKENS
from fllm.tokenizer import Tokenizer

_ANCHORS = ("\n", "a", ".")
"""What a piece is encoded behind, since many tokenizers put a space before the first word of a text."""


class Alphabet:
    """The tokens of single bytes, with which every text can be written."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def ids(self) -> dict[int, int]:
        """Each byte's token."""
        if not self._tokenizer.byte_level:
            return {byte: token_id for token_id, byte in self._tokenizer.byte_tokens.items()}
        from tokenizers.pre_tokenizers import ByteLevel

        found = (self._tokenizer.token_to_id(character) for character in ByteLevel.alphabet())
        return {self._tokenizer.token_bytes(each)[0]: each for each in found if each is not None}

    def spell(self, text: str) -> list[int] | None:
        """The text byte by byte; ``None`` where a byte has no token."""
        spelled = [self.ids.get(byte) for byte in text.encode()]
        return None if None in spelled else [each for each in spelled if each is not None]


class Speller:
    """A stage from text to token ids whose text, behind ``context``, is exactly that text.

    They need not be the ids that the model sampled: a word that comes in two pieces may be two tokens here
    and was one there. What spells a special token is that token.
    """

    def __init__(self, tokenizer: Tokenizer, alphabet: Alphabet, context: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._alphabet = alphabet
        self._window = self._last(context)

    def spell(self, text: str) -> list[int]:
        """The ids of the next piece."""
        if not text:
            return []
        ids = next((ids for ids in self._candidates(text) if self._says(ids, text)), None)
        if ids is None:  # a vocabulary that can't write it
            ids = self._tokenizer.encode(text, add_special_tokens=False)
        self._window = self._last([*self._window, *ids])
        return ids

    def _candidates(self, text: str) -> Iterator[list[int]]:
        yield self._tokenizer.encode(text, add_special_tokens=False)
        for anchor in _ANCHORS:
            before = self._tokenizer.encode(anchor, add_special_tokens=False)
            both = self._tokenizer.encode(anchor + text, add_special_tokens=False)
            if both[: len(before)] == before:
                yield both[len(before) :]
        if spelled := self._alphabet.spell(text):
            yield spelled

    def _says(self, ids: list[int], text: str) -> bool:
        if self._tokenizer.byte_level:
            return b"".join(map(self._tokenizer.token_bytes, ids)) == text.encode()
        before = self._decode(self._window)
        return self._decode([*self._window, *ids]) == before + text

    def _last(self, ids: Sequence[int]) -> list[int]:
        """The last few, from the beginning of a character: the rest of one would spoil what follows it."""
        start = max(len(ids) - CONTEXT_TOKENS, 0)
        while start > 0 and 0x80 <= self._tokenizer.byte_tokens.get(ids[start], 0) < 0xC0:
            start -= 1
        return list(ids[start:])

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)
