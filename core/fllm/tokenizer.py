"""A model's tokenizer: text to token ids, and token ids to text or bytes."""

from __future__ import annotations

import os
import re
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from fllm.containment import mapped
from fllm.control_tokens import MARK, split_at_marks, unescape
from fllm.errors import ModelError, RequestError, format_error
from fllm.files import check_regular, read_bounded
from fllm.values import PoolingInput

if TYPE_CHECKING:
    import tokenizers

MAX_TOKENIZER_BYTES = 256 * 1024**2
"""Maximum size of ``tokenizer.json``; that of Gemma 3 has 32 MiB."""
MAX_CONFIG_BYTES = 16 * 1024**2
"""Maximum size of ``tokenizer_config.json``."""

_failing_on_text = mapped(
    lambda error: RequestError(f"the model's tokenizer fails on the text: {format_error(error)}"),
    base_exceptions=True,  # a regular expression that exceeds Oniguruma's limit is a panic
)


class Tokenizer:
    """A model's tokenizer. Encoding is thread-safe and releases the GIL."""

    def __init__(self, inner: tokenizers.Tokenizer, special_tokens: Mapping[str, str]) -> None:
        from tokenizers.decoders import ByteLevel

        self._inner = inner
        self.special_tokens = special_tokens
        """Special tokens by role (``bos_token``, ``eos_token``...), as chat templates name them."""
        self.special_ids = frozenset(i for i, t in inner.get_added_tokens_decoder().items() if t.special)
        """Ids of the special tokens, which `decode` can omit."""
        self.vocab_size = inner.get_vocab_size()
        """Number of tokens, including added ones."""
        self.base_vocab_size = inner.get_vocab_size(with_added_tokens=False)
        """Number of tokens without added ones."""
        self.byte_level = isinstance(inner.decoder, ByteLevel)
        """Whether each token is a fixed string of bytes, independent of its neighbours."""
        self.byte_tokens = {} if self.byte_level else self._find_byte_tokens()
        """SentencePiece's byte tokens (``<0x0A>``): token id to byte."""
        self._cached_bytes = cache(self._read_bytes)
        self._text_encoder = cache(partial(TextEncoder, inner))

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Load ``tokenizer.json`` and ``tokenizer_config.json``; raise `ModelError` if they can't be read."""
        import tokenizers

        file = directory / "tokenizer.json"
        try:
            size = check_regular(file)
        except OSError as error:
            raise ModelError(f"the tokenizer {file} can't be read: {error.strerror}") from error
        if size > MAX_TOKENIZER_BYTES:
            raise ModelError(f"the tokenizer {file} is larger than {MAX_TOKENIZER_BYTES >> 20} MiB")
        # The library raises plain exceptions, and a panic is not an `Exception`.
        with mapped(
            lambda error: ModelError(f"the tokenizer {file} can't be read: {error}"), base_exceptions=True
        ):
            inner = tokenizers.Tokenizer.from_file(str(file))
        # Some tokenizers are published with their training settings, which would truncate prompts.
        inner.no_truncation()
        inner.no_padding()
        # Text is encoded in the calling thread; the library's own thread pool would warn at every fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return cls(inner, _read_special_tokens(directory / "tokenizer_config.json"))

    @property
    def bos_token(self) -> str | None:
        """Beginning-of-sequence token, if the model has one."""
        return self.special_tokens.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        """End-of-sequence token, if the model has one."""
        return self.special_tokens.get("eos_token")

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the token ids of a text. Raise `RequestError` if the model's tokenizer fails on it.

        ``add_special_tokens`` adds the tokens that the model expects around plain text, such as BOS. A
        rendered chat usually contains them already. Control tokens that are marked are text
        (`fllm.control_tokens`).
        """
        with _failing_on_text:
            if MARK in text:
                ids = self._text_encoder().encode(text)
                return self._with_special_tokens(ids) if add_special_tokens else ids
            # Unlike `encode`, it releases the GIL and does not compute offsets.
            [encoding] = self._inner.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return encoding.ids

    def encode_text(self, text: str) -> tokenizers.Encoding:
        """Return a text for `encode_input`. Raise `RequestError` if the model's tokenizer fails on it."""
        with _failing_on_text:
            [encoding] = self._inner.encode_batch_fast([text], add_special_tokens=False)
        return encoding

    def encode_input(
        self,
        first: str | tokenizers.Encoding,
        second: str | None = None,
        *,
        add_special_tokens: bool = True,
        max_tokens: int | None = None,
        max_second: int | None = None,
        keep_end: bool = False,
    ) -> PoolingInput:
        """Return a text, or a pair of texts, with special tokens as the input of a model that pools.

        ``first`` may be from `encode_text`, for several pairs; it is not changed.
        ``max_tokens`` truncates, special tokens aside, as transformers does: the longer text of a pair first.
        ``max_second`` truncates the second text before. ``keep_end`` truncates at the beginning. Control
        tokens in the texts are control tokens. Raise `RequestError` if the model's tokenizer fails on a text.
        """
        side = "left" if keep_end else "right"
        with _failing_on_text:
            given = [first] if second is None else [first, second]
            encodings = [self.encode_text(each) if isinstance(each, str) else each for each in given]
            if second is not None and max_second is not None:
                encodings[1].truncate(max_second, direction=side)
            if max_tokens is not None:
                added = self._inner.num_special_tokens_to_add(second is not None) if add_special_tokens else 0
                room = _share(max(max_tokens - added, 0), [len(each) for each in encodings])
                for i, length in enumerate(room):
                    if length < len(encodings[i]):
                        encodings[i] = deepcopy(encodings[i]) if encodings[i] is first else encodings[i]
                        encodings[i].truncate(length, direction=side)
            pair = None if second is None else encodings[1]
            whole = self._inner.post_process(encodings[0], pair, add_special_tokens)
        types = whole.type_ids
        return PoolingInput(whole.ids, types.index(1) if second is not None and 1 in types else None)

    def _with_special_tokens(self, ids: list[int]) -> list[int]:
        """Return the tokens with those that the model expects around plain text."""
        plain = self.encode("a", add_special_tokens=False)
        both = self.encode("a", add_special_tokens=True)
        starts = (i for i in range(len(both)) if both[i : i + len(plain)] == plain)
        start = next(starts, 0)
        return [*both[:start], *ids, *both[start + len(plain) :]]

    @property
    def added_tokens(self) -> tuple[list[str], list[str]]:
        """The texts of the special tokens, and those of the other tokens that were added to the model's."""
        tokens = self._inner.get_added_tokens_decoder().values()
        return [t.content for t in tokens if t.special], [t.content for t in tokens if not t.special]

    def min_token_count(self, text: str) -> int:
        """Return a lower bound of the number of tokens of a text, without encoding it."""
        return len(text) // self._max_token_length

    def max_text_length(self, tokens: int) -> int:
        """Return how many characters this many tokens stand for at most."""
        return tokens * self._max_token_length

    @cached_property
    def _max_token_length(self) -> int:
        return max(map(len, self._inner.get_vocab()), default=1) or 1

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of token ids; ids that are not in the vocabulary are omitted."""
        return self._inner.decode(ids, skip_special_tokens=skip_special_tokens)

    def vocabulary(self) -> dict[str, int]:
        """Return the id of each token, by its name in the vocabulary."""
        return dict(self._inner.get_vocab())

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token of the vocabulary, or ``None``."""
        return self._inner.token_to_id(token)

    def token_text(self, token_id: int) -> str:
        """Return the text of one token inside a text; an incomplete character is U+FFFD."""
        return self.token_bytes(token_id).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that one token adds to a text, even if they are an incomplete character."""
        return self._cached_bytes(token_id)

    def _read_bytes(self, token_id: int) -> bytes:
        token = self._inner.id_to_token(token_id)
        if token is None:
            return b""
        if self.byte_level:
            return _byte_level(token)
        if token_id in self.byte_tokens:
            return bytes([self.byte_tokens[token_id]])
        # Most decoders strip a leading space of a text, so decode the token twice: the second is complete.
        once = self.decode([token_id], skip_special_tokens=False)
        twice = self.decode([token_id, token_id], skip_special_tokens=False)
        return twice[len(once) :].encode()

    def _find_byte_tokens(self) -> dict[int, int]:
        byte_tokens = {}
        for byte in range(256):
            token = f"<0x{byte:02X}>"
            token_id = self.token_to_id(token)
            if token_id is not None and self.decode([token_id], skip_special_tokens=False) != token:
                byte_tokens[token_id] = byte
        return byte_tokens


class TextEncoder:
    """Encodes texts in which some control tokens are marked as text.

    It shares the model of a tokenizer, and has its added tokens under names that no text contains. Added
    tokens that are not marked are renamed; the rest of the text is encoded like any other characters.
    """

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        import tokenizers

        added = inner.get_added_tokens_decoder()
        secret = secrets.token_hex(8)
        self._names = {token.content: f"\ufdd1{secret}:{token_id}\ufdd1" for token_id, token in added.items()}
        self._encoder = tokenizers.Tokenizer(inner.model)
        for part in ("normalizer", "pre_tokenizer"):
            if (value := getattr(inner, part)) is not None:
                setattr(self._encoder, part, value)
        self._encoder.add_special_tokens(
            [
                tokenizers.AddedToken(
                    self._names[token.content], lstrip=token.lstrip, rstrip=token.rstrip, normalized=False
                )
                for token in added.values()
            ]
        )
        self._ids = {
            self._encoder.token_to_id(self._names[token.content]): token_id
            for token_id, token in added.items()
        }
        self._special_ids = {token_id for token_id, token in added.items() if token.special}
        self._whole_words = {token.content for token in added.values() if token.single_word}
        by_beginning: defaultdict[str, set[int]] = defaultdict(set)
        for content in self._names:
            by_beginning[content[:2]].add(len(content))
        self._lengths = {key: sorted(lengths, reverse=True) for key, lengths in by_beginning.items()}
        """Lengths of the added tokens with the same two first characters, in descending order."""
        self._beginnings = (
            re.compile("|".join(map(_beginning, sorted(by_beginning)))) if by_beginning else None
        )

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text with marks."""
        renamed = "".join(self._rename(text))
        ids = self._encode(unescape(renamed))
        if self._special_ids.isdisjoint(token_id for token_id in ids if token_id not in self._ids):
            return self._original(ids)
        # A model of the kind Unigram has special tokens in its vocabulary, so the text is cut inside them.
        return [
            token_id for piece in split_at_marks(renamed) for token_id in self._original(self._encode(piece))
        ]

    def _rename(self, text: str) -> Iterator[str]:
        """Yield the pieces of the text with added tokens replaced by their names, the longest ones first."""
        start = 0
        for match in self._beginnings.finditer(text) if self._beginnings else ():
            if match.start() >= start and (token := self._token_at(text, match.start())):
                yield text[start : match.start()]
                yield self._names[token]
                start = match.start() + len(token)
        yield text[start:]

    def _token_at(self, text: str, start: int) -> str | None:
        """Return the added token that begins there, unless it is marked: within, or after a short one."""
        pair = text[start : start + 2]
        for length in (*self._lengths.get(pair, ()), *(self._lengths.get(pair[0], ()) if pair[1:] else ())):
            token = text[start : start + length]
            if token in self._names and (token not in self._whole_words or _is_word(text, start, length)):
                return None if _ends_with_mark(text, start + length) else token
        return None

    def _encode(self, text: str) -> list[int]:
        [encoding] = self._encoder.encode_batch_fast([text], add_special_tokens=False)
        return encoding.ids

    def _original(self, ids: Iterable[int]) -> list[int]:
        return [self._ids.get(token_id, token_id) for token_id in ids]


def _share(room: int, lengths: list[int]) -> list[int]:
    """Return how many tokens of one or two texts are kept: the shorter text is truncated last."""
    if len(lengths) == 1:
        return [room]
    shorter, longer = sorted((0, 1), key=lengths.__getitem__)
    kept = [0, 0]
    kept[shorter] = min(lengths[shorter], room // 2)
    kept[longer] = min(lengths[longer], room - kept[shorter])
    return kept


def _beginning(characters: str) -> str:
    """Return a pattern for the first of two characters, since the second may begin another token."""
    first, second = characters[0], characters[1:]
    return f"{re.escape(first)}(?={re.escape(second)})"


def _ends_with_mark(text: str, end: int) -> bool:
    """Return whether a mark follows, and not a doubled one, which is a character of the text."""
    marks = 0
    while text.startswith(MARK, end + marks):
        marks += 1
    return marks % 2 == 1


def _is_word(text: str, start: int, length: int) -> bool:
    """Return whether no letter, digit or underscore is next to a part of a text."""
    neighbours = text[start - 1 : start] + text[start + length : start + length + 1]
    return not any(each.isalnum() or each == "_" for each in neighbours)


def _byte_level(token: str) -> bytes:
    try:
        return bytes(map(_byte_of_character().__getitem__, token))
    except KeyError:
        return token.encode()  # an added token, which is stored as plain text


@cache
def _byte_of_character() -> dict[str, int]:
    """Return GPT-2's alphabet: printable bytes map to themselves, the others to U+0100 and up, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


class _AddedToken(Struct):
    content: str


class _SpecialTokens(Struct):
    """The special tokens that every model may have, and the types of their values."""

    bos_token: str | _AddedToken | None = None
    eos_token: str | _AddedToken | None = None
    unk_token: str | _AddedToken | None = None
    pad_token: str | _AddedToken | None = None


def _read_special_tokens(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    try:
        config = msgspec.json.decode(read_bounded(file, MAX_CONFIG_BYTES), type=dict[str, Any])
        msgspec.convert(config, _SpecialTokens)
    except OSError as error:
        raise ModelError(f"{file} can't be read: {error.strerror}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelError(f"{file} is invalid: {error}") from error
    tokens = ((name, _content(value)) for name, value in config.items() if name.endswith("_token"))
    return {name: token for name, token in tokens if token is not None}


def _content(token: object) -> str | None:
    """Return the text of a token, which is stored as a string or as an object with flags."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
