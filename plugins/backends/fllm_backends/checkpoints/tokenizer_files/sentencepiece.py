"""Read a model of SentencePiece, which is a message of Protocol Buffers (sentencepiece_model.proto)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from fllm.errors import ModelError
from fllm.files import read_bounded
from fllm.tokenizer import MAX_TOKENIZER_BYTES

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_BPE = 2


class Piece(Struct):
    """An entry of the vocabulary."""

    text: str = ""
    score: float = 0.0
    kind: int = 1
    """1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; GGUF has the same numbers."""


class SentencePieceModel(Struct):
    """A vocabulary and how texts are normalised."""

    pieces: list[Piece]
    kind: int = 1
    unk_id: int = 0
    bos_id: int = 1
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    has_charsmap: bool = False


def read_sentencepiece(file: Path) -> SentencePieceModel:
    """Read a model; raise `ModelError` if it is invalid, or not one of BPE without a normalizer."""
    try:
        model = _parse(read_bounded(file, MAX_TOKENIZER_BYTES))
    except OSError as error:
        raise ModelError(f"{file} can't be read: {error.strerror}") from error
    except (ValueError, IndexError, struct.error) as error:
        raise ModelError(f"{file} is not a SentencePiece model: {error}") from error
    unsupported = {
        "the kind Unigram, Word or Char": model.kind != _BPE,
        "a normalizer": model.has_charsmap,
        "remove_extra_whitespaces": model.remove_extra_whitespaces,
    }
    for what, present in unsupported.items():
        if present:
            raise ModelError(f"{file}: SentencePiece models with {what} are not supported")
    return model


def _parse(content: bytes) -> SentencePieceModel:
    model = SentencePieceModel([])
    for field, value in _fields(content):
        if field == 1:
            model.pieces.append(_piece(_message(value)))
        elif field == 2:
            trainer = dict(_fields(_message(value)))
            model.kind = _number(trainer.get(3, 1))
            model.unk_id, model.bos_id = _number(trainer.get(40, 0)), _number(trainer.get(41, 1))
        elif field == 3:
            normalizer = dict(_fields(_message(value)))
            model.has_charsmap = bool(normalizer.get(2))
            model.add_dummy_prefix = bool(normalizer.get(3, 1))
            model.remove_extra_whitespaces = bool(normalizer.get(4, 1))
    if not model.pieces or not 0 <= model.unk_id < len(model.pieces):
        raise ValueError("it has no pieces, or no unknown piece")
    return model


def _piece(content: bytes) -> Piece:
    piece = Piece()
    for field, value in _fields(content):
        if field == 1:
            piece.text = _message(value).decode()
        elif field == 2:
            [piece.score] = struct.unpack("<f", _message(value))
        elif field == 3:
            piece.kind = _number(value)
    return piece


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field: an integer, or bytes."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(content, at)
        elif kind in (_FIXED_32, _FIXED_64):
            size = 4 if kind == _FIXED_32 else 8
        else:
            raise ValueError(f"unknown wire type {kind}")
        if at + size > len(content):
            raise ValueError("it is truncated")
        yield key >> 3, content[at : at + size]
        at += size


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value - (1 << 64 if value >> 63 else 0), at
        if shift > 63:
            raise ValueError("an integer is too long")


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a field is an integer")  # noqa: TRY004
    return value


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("a field is not an integer")  # noqa: TRY004
    return value
