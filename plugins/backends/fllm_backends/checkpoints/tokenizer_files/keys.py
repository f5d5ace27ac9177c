"""Describe tokenizers of other formats in the keys of a GGUF file, of which `gguf.tokenizer` builds one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from fllm.errors import ModelError
from fllm.files import read_bounded
from fllm.tokenizer import MAX_TOKENIZER_BYTES
from fllm_backends.checkpoints.gguf.metadata import Keys
from fllm_backends.checkpoints.json_files import convert, read_object
from fllm_backends.checkpoints.tokenizer_files.sentencepiece import read_sentencepiece

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_TEKKEN_SPECIAL = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
    "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
"""Special tokens of tekken.json files that do not list them: those of Mistral NeMo."""
_BYTE_LEVEL_CLASSES = ("", "GPT2", "Roberta", "Bart", "CodeGen", "GPTNeoX", "Qwen2", "PreTrained")
"""Classes of tokenizers whose vocab.json and merges.txt are split as GPT-2's or Qwen2's."""


class TokenizerKeys(Struct, frozen=True):
    """Keys without a GGUF file; see `Keys`."""

    values: dict[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key of the tokenizer, or ``default``."""
        value = self.values.get(key.removeprefix("tokenizer.ggml."))
        return default if value is None else value

    def require(self, key: str) -> Any:
        """Return the value of a key; raise `ModelError` if there is none."""
        value = self.get(key)
        if value is None:
            raise ModelError(f"the tokenizer lacks {key!r}")
        return value


def read_tokenizer_keys(directory: Path, name: str) -> Keys:
    """Read the file ``name``: tokenizer.model, tekken.json, or vocab.json with merges.txt.

    Raise `ModelError`.
    """
    config = read_object(directory / "tokenizer_config.json")
    read = {"tokenizer.model": _sentencepiece, "tekken.json": _tekken, "vocab.json": _byte_level}[name]
    keys = read(directory / name, config)
    _append_added_tokens(directory, config, keys)
    for role, key in (("bos_token", "bos_token_id"), ("unk_token", "unknown_token_id")):
        token = config.get(role)
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str) and content in keys["tokens"]:
            keys[key] = keys["tokens"].index(content)
    if isinstance(config.get("add_bos_token"), bool):
        keys["add_bos_token"] = config["add_bos_token"]
    return TokenizerKeys(keys)


def _sentencepiece(file: Path, config: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    model = read_sentencepiece(file)
    pieces = model.pieces
    return {
        "model": "llama",
        "tokens": [piece.text for piece in pieces],
        "scores": [piece.score for piece in pieces],
        "token_type": [piece.kind for piece in pieces],
        "bos_token_id": model.bos_id if 0 <= model.bos_id < len(pieces) else None,
        "unknown_token_id": model.unk_id,
        "add_space_prefix": model.add_dummy_prefix,
    }


class _TekkenToken(Struct):
    rank: Annotated[int, Meta(ge=0)]
    token_bytes: str


class _TekkenSpecial(Struct):
    rank: Annotated[int, Meta(ge=0)]
    token_str: str


class _TekkenConfig(Struct):
    default_vocab_size: Annotated[int, Meta(ge=1, le=2**24)]
    default_num_special_tokens: Annotated[int, Meta(ge=0, le=2**20)]


class _Tekken(Struct):
    config: _TekkenConfig
    vocab: list[_TekkenToken]
    special_tokens: list[_TekkenSpecial] | None = None


def _tekken(file: Path, config: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Read Mistral's format: byte strings by rank, after the special tokens."""
    try:
        raw = msgspec.json.decode(read_bounded(file, MAX_TOKENIZER_BYTES), type=_Tekken)
        count = raw.config.default_num_special_tokens
        entries = sorted(raw.vocab, key=lambda token: token.rank)[: raw.config.default_vocab_size - count]
        vocabulary = [base64.b64decode(token.token_bytes, validate=True) for token in entries]
    except OSError as error:
        raise ModelError(f"{file} can't be read: {error.strerror}") from error
    except (msgspec.DecodeError, RecursionError, binascii.Error) as error:
        raise ModelError(f"{file} is invalid: {error}") from error
    special = [f"<SPECIAL_{index}>" for index in range(count)]
    for index, token in enumerate(_TEKKEN_SPECIAL[:count]):
        special[index] = token
    for entry in raw.special_tokens or []:
        if entry.rank < count:
            special[entry.rank] = entry.token_str
    return {
        "model": "gpt2",
        "pre": "tekken",
        "tokens": special + [_byte_level_text(token) for token in vocabulary],
        "token_type": [_CONTROL] * count + [_NORMAL] * len(vocabulary),
        "merges": [f"{_byte_level_text(a)} {_byte_level_text(b)}" for a, b in _merges(vocabulary)],
        "bos_token_id": special.index("<s>") if "<s>" in special else None,
    }


def _merges(vocabulary: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pairs that form each token, in the order of ranks, as tiktoken merges them."""
    ranks = {token: rank for rank, token in enumerate(vocabulary)}
    for token in vocabulary:
        pairs = ((token[:at], token[at:]) for at in range(1, len(token)))
        yield from sorted(
            (pair for pair in pairs if pair[0] in ranks and pair[1] in ranks),
            key=lambda pair: (ranks[pair[0]], ranks[pair[1]]),
        )


def _byte_level(file: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Read the format of GPT-2: a vocabulary of bytes as characters, and merges by rank."""
    kind = str(config.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
    if kind not in _BYTE_LEVEL_CLASSES:
        raise ModelError(f"{file}: the vocabulary of a {config['tokenizer_class']} can't be converted")
    ids = convert(read_object(file), dict[str, int], str(file))
    tokens = [token for token, _ in sorted(ids.items(), key=lambda entry: entry[1])]
    if sorted(ids.values()) != list(range(len(ids))):
        raise ModelError(f"{file}: the ids are not 0 to {len(ids) - 1}")
    merges_file = file.with_name("merges.txt")
    try:
        lines = read_bounded(merges_file, MAX_TOKENIZER_BYTES).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{merges_file} can't be read: {error}") from error
    return {
        "model": "gpt2",
        "pre": "qwen2" if kind == "Qwen2" else "gpt-2",
        "tokens": tokens,
        "token_type": [_NORMAL] * len(tokens),
        "merges": [line for line in lines if line and not line.startswith("#version")],
    }


class _AddedToken(Struct):
    content: str
    special: bool = False


def _append_added_tokens(directory: Path, config: dict[str, Any], keys: dict[str, Any]) -> None:
    """Append the tokens that were added to the vocabulary after its training, with their own ids."""
    where = str(directory / "tokenizer_config.json")
    listed = convert(config.get("added_tokens_decoder") or {}, dict[str, _AddedToken], where)
    file = directory / "added_tokens.json"
    older = convert(read_object(file), dict[str, int], str(file))
    added = {index: _AddedToken(content, special=content.startswith("<")) for content, index in older.items()}
    added |= {int(index): token for index, token in listed.items() if index.isdecimal()}
    for index, token in sorted(added.items()):
        if index > len(keys["tokens"]):
            raise ModelError(f"{where}: the added token {token.content!r} leaves a gap before its id {index}")
        kind = _CONTROL if token.special else _USER_DEFINED
        if index == len(keys["tokens"]):
            keys["tokens"].append(token.content)
            keys["token_type"].append(kind)
            keys.setdefault("scores", []).append(0.0)
        elif keys["tokens"][index] == token.content:
            keys["token_type"][index] = kind


def _byte_level_text(token: bytes) -> str:
    return "".join(map(_CHARACTERS.__getitem__, token))


def _byte_characters() -> list[str]:
    """Return GPT-2's alphabet by byte: printable bytes as themselves, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256))
    return [chr(byte) if byte in printable else chr(256 + next(others)) for byte in range(256)]


_CHARACTERS = _byte_characters()
