"""Text to token ids, and token ids, one by one, back to text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fllm.errors import ModelError

if TYPE_CHECKING:
    import tokenizers


class Tokenizer:
    """A model's tokenizer. Encoding releases the GIL and may run in any thread."""

    def __init__(self, inner: tokenizers.Tokenizer, special_tokens: Mapping[str, str]) -> None:
        from tokenizers.decoders import ByteLevel

        self._inner = inner
        self.special_tokens = special_tokens
        """The special tokens by their part (``bos_token``, ``eos_token``...), as chat templates name them."""
        self.special_ids = frozenset(i for i, t in inner.get_added_tokens_decoder().items() if t.special)
        """Tokens that are left out of text on request."""
        self.vocab_size = inner.get_vocab_size()
        """Tokens there are, added ones included."""
        self.byte_level = isinstance(inner.decoder, ByteLevel)
        """Each token is a string of bytes, whatever stands beside it."""
        self.byte_tokens = {} if self.byte_level else self._find_byte_tokens()
        """SentencePiece's tokens for single bytes (``<0x0A>``), and which."""
        self._cached_bytes = cache(self._read_bytes)

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Read ``tokenizer.json`` and ``tokenizer_config.json``; raises `ModelError`."""
        import tokenizers

        file = directory / "tokenizer.json"
        try:
            inner = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise ModelError(f"no tokenizer can be read from {file}: {error}") from error
        # Some are published with the settings of their training, which would cut every prompt.
        inner.no_truncation()
        inner.no_padding()
        # A text is encoded in the thread that asks for it; a pool of threads would warn of every fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return cls(inner, _read_special_tokens(directory / "tokenizer_config.json"))

    @property
    def bos_token(self) -> str | None:
        """What begins a text."""
        return self.special_tokens.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        """What ends a text."""
        return self.special_tokens.get("eos_token")

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text; ``special`` adds what the model wants around a bare text, such as BOS.

        A rendered chat has these already.
        """
        # Unlike `encode`, it releases the GIL, and leaves out what nobody asks for.
        [encoding] = self._inner.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return encoding.ids

    def min_token_count(self, text: str) -> int:
        """No text of that length has fewer; known without encoding it."""
        return len(text) // self._longest

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._inner.get_vocab()), default=1) or 1

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Text of token ids; ids that the vocabulary lacks are left out."""
        return self._inner.decode(ids, skip_special_tokens=skip_special_tokens)

    def token_to_id(self, token: str) -> int | None:
        """Id of the token that the vocabulary spells so."""
        return self._inner.token_to_id(token)

    def token_text(self, token_id: int) -> str:
        """What one token looks like inside a text; part of a character is U+FFFD."""
        return self.token_bytes(token_id).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """What one token adds to a text: exact where it holds only part of a character."""
        return self._cached_bytes(token_id)

    def _read_bytes(self, token_id: int) -> bytes:
        token = self._inner.id_to_token(token_id)
        if token is None:
            return b""
        if self.byte_level:
            return _byte_level(token)
        if token_id in self.byte_tokens:
            return bytes([self.byte_tokens[token_id]])
        # At the beginning of a text, most decoders strip a space: it is the second of two that shows all.
        once = self.decode([token_id], skip_special_tokens=False)
        twice = self.decode([token_id, token_id], skip_special_tokens=False)
        return twice[len(once) :].encode()

    def _find_byte_tokens(self) -> dict[int, int]:
        found = {}
        for byte in range(256):
            token = f"<0x{byte:02X}>"
            token_id = self.token_to_id(token)
            if token_id is not None and self.decode([token_id], skip_special_tokens=False) != token:
                found[token_id] = byte
        return found


def _byte_level(token: str) -> bytes:
    try:
        return bytes(map(_byte_of_character().__getitem__, token))
    except KeyError:
        return token.encode()  # an added token, which is spelled as it is


@cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others for U+0100 and up, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _read_special_tokens(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    try:
        config = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"{file} can't be read: {error}") from error
    named = ((name, _content(value)) for name, value in config.items() if name.endswith("_token"))
    return {name: token for name, token in named if token is not None}


def _content(token: object) -> str | None:
    """A token is written as a string or, with its flags, as an object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
