"""Turn token ids, one by one, back into text."""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Iterable, Sequence
from typing import Protocol

from fllm.tokenizer import Tokenizer


class Detokenizer:
    """A stage from token ids to text.

    The pieces never split a character and, joined, are what `Tokenizer.decode` makes of all the ids.
    ``visible`` names special tokens that stay, though ``skip_special`` drops the others. With a ``context``
    the text goes on where that of those ids ends: SentencePiece strips the space of a first word, which this
    one then is not.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special_tokens: bool,
        visible: Iterable[str] = frozenset(),
        context: Sequence[int] = (),
    ) -> None:
        dropped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._dropped = dropped - {tokenizer.token_to_id(token) for token in visible}
        self._stage: _Stage = _Bytes(tokenizer) if tokenizer.byte_level else _Window(tokenizer, context)

    def feed(self, token_id: int) -> str:
        """Take the next token; give the text that is now certain."""
        return "" if token_id in self._dropped else self._stage.feed(token_id)

    def finish(self) -> str:
        """No more will come: give what was held back."""
        return self._stage.finish()


class _Stage(Protocol):
    def feed(self, token_id: int) -> str: ...
    def finish(self) -> str: ...


class _Bytes:
    """For byte-level vocabularies: bytes are looked up, and held back until they are characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._bytes = tokenizer.token_bytes
        self._held = b""

    def feed(self, token_id: int) -> str:
        data = self._held + self._bytes(token_id)
        text, used = utf_8_decode(data, "replace", False)
        self._held = data[used:]
        return text

    def finish(self) -> str:
        held, self._held = self._held, b""
        return held.decode(errors="replace")


CONTEXT_TOKENS = 8
"""Tokens of what came before that decide how the next one looks: more than any decoder asks."""


class _Window:
    """For all others: decodes each token behind the one before, since the first of a text may look different.

    Byte tokens wait for the end of their run, since one that is not UTF-8 is replaced as a whole.
    An id that the vocabulary lacks does not end it.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(context[-CONTEXT_TOKENS:])
        self._shown = len(self._decode(self._ids))
        """Length of the text of those of the window that were given already."""

    def feed(self, token_id: int) -> str:
        self._ids.append(token_id)
        held = token_id in self._tokenizer.byte_tokens or not self._tokenizer.token_bytes(token_id)
        return "" if held else self._take()

    def finish(self) -> str:
        return self._take()

    def _take(self) -> str:
        text = self._decode(self._ids)
        piece = text[self._shown :]
        self._shown = len(text)
        # A lone space may be stripped to nothing, and so would the next; two never are.
        for context in (self._ids[-1:], self._ids[-2:]):
            if shown := len(self._decode(context)):
                self._ids, self._shown = context, shown
                break
        return piece

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)
