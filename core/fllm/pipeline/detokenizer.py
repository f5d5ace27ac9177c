"""Incremental detokenization: token ids to text, one token at a time."""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Collection, Sequence
from typing import Protocol

from fllm.interfaces import EVERY_SPECIAL_TOKEN
from fllm.tokenizer import Tokenizer


class Detokenizer:
    """Turns the token ids of one sequence into pieces of text.

    No piece splits a character, and the joined pieces equal `Tokenizer.decode` of all ids. ``visible`` names
    special tokens that stay in the text even if ``skip_special_tokens`` is set. With a ``context`` the text
    continues the text of those ids: SentencePiece strips the leading space of the first word only, and a word
    after a context is not the first.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special_tokens: bool,
        visible: Collection[str] = frozenset(),
        context: Sequence[int] = (),
    ) -> None:
        skips = skip_special_tokens and EVERY_SPECIAL_TOKEN not in visible
        skipped = tokenizer.special_ids if skips else frozenset()
        self._skipped = skipped - {tokenizer.token_to_id(token) for token in visible}
        self._decoder: _Decoder = (
            _ByteLevelDecoder(tokenizer) if tokenizer.byte_level else _WindowDecoder(tokenizer, context)
        )

    def feed(self, token_id: int) -> str:
        """Add the next token; return the text that is now certain."""
        return "" if token_id in self._skipped else self._decoder.feed(token_id)

    def finish(self) -> str:
        """Return the pending text at the end of the sequence."""
        return self._decoder.finish()


class _Decoder(Protocol):
    def feed(self, token_id: int) -> str: ...
    def finish(self) -> str: ...


class _ByteLevelDecoder:
    """Decodes byte-level vocabularies: looks up each token's bytes, and waits for incomplete characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._bytes = tokenizer.token_bytes
        self._pending = b""

    def feed(self, token_id: int) -> str:
        data = self._pending + self._bytes(token_id)
        text, used = utf_8_decode(data, "replace", False)
        self._pending = data[used:]
        return text

    def finish(self) -> str:
        pending, self._pending = self._pending, b""
        return pending.decode(errors="replace")


CONTEXT_TOKENS = 8
"""Number of preceding tokens that can affect how the next one is decoded: more than any decoder needs."""


class _WindowDecoder:
    """Decodes other vocabularies: each token after the previous one, since the first may decode differently.

    Byte tokens wait for the end of their run, because an invalid UTF-8 run is replaced as a whole. An id that
    is not in the vocabulary does not end the run.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(context[-CONTEXT_TOKENS:])
        self._emitted = len(self._decode(self._ids))
        """Number of characters of the window's text that have been emitted."""

    def feed(self, token_id: int) -> str:
        self._ids.append(token_id)
        incomplete = token_id in self._tokenizer.byte_tokens or not self._tokenizer.token_bytes(token_id)
        return "" if incomplete else self._emit()

    def finish(self) -> str:
        return self._emit()

    def _emit(self) -> str:
        text = self._decode(self._ids)
        piece = text[self._emitted :]
        self._emitted = len(text)
        # A single space may decode to nothing, and so would the space after it; two tokens together never do.
        for window in (self._ids[-1:], self._ids[-2:]):
            if emitted := len(self._decode(window)):
                self._ids, self._emitted = window, emitted
                break
        return piece

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)
