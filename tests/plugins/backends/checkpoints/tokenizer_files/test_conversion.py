from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from fllm.errors import ModelError
from fllm.tokenizer import Tokenizer
from fllm_backends.checkpoints.tokenizer_files.directory import check_tokenizer, tokenizer_directory

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
PIECES = [
    ("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL),
    *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)),
    ("▁t", -1.0, NORMAL), ("he", -2.0, NORMAL), ("▁the", -3.0, NORMAL), ("▁", -4.0, NORMAL),
    *((letter, -5.0 - index, NORMAL) for index, letter in enumerate("thecaz")),
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "cache"))


def varint(number: int) -> bytes:
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def sentencepiece(kind: int = 2, prefix: int = 1, whitespace: int = 0) -> bytes:
    pieces = (
        field(1, field(1, text.encode()) + field(2, score) + field(3, kind)) for text, score, kind in PIECES
    )
    trainer = field(3, kind) + field(35, 1) + field(40, 0) + field(41, 1)
    return b"".join([*pieces, field(2, trainer), field(3, field(3, prefix) + field(4, whitespace))])


def converted(directory: Path) -> Tokenizer:
    check_tokenizer(directory)
    return Tokenizer.load(tokenizer_directory(directory))


def ids(*texts: str) -> list[int]:
    return [[piece[0] for piece in PIECES].index(text) for text in texts]


def test_a_sentencepiece_model_is_converted(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece())
    config = {
        "bos_token": "<s>",
        "added_tokens_decoder": {str(len(PIECES)): {"content": "<|im_end|>", "special": True}},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = converted(tmp_path)
    assert tokenizer.encode("the cat", add_special_tokens=True) == ids("<s>", "▁the", "▁", "c", "a", "t")
    assert tokenizer.encode("zé", add_special_tokens=False) == ids("▁", "z", "<0xC3>", "<0xA9>")
    assert tokenizer.encode("<|im_end|>", add_special_tokens=False) == [len(PIECES)]
    assert tokenizer.decode(ids("▁the", "▁", "c"), skip_special_tokens=True) == "the c"
    assert tokenizer.bos_token == "<s>"


def test_a_sentencepiece_model_without_a_prefix_is_converted(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece(prefix=0))
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    assert converted(tmp_path).encode("the", add_special_tokens=True) == ids("t", "he")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (sentencepiece(kind=1), "with the kind Unigram, Word or Char are not supported"),
        (sentencepiece(whitespace=1), "with remove_extra_whitespaces are not supported"),
        (sentencepiece()[:-3], "is not a SentencePiece model: it is truncated"),
        (b"IQ== 0\nIg== 1\n", "is not a SentencePiece model"),
        (b"", "it has no pieces"),
        (b"\x0b", "is not a SentencePiece model"),
    ],
)
def test_another_sentencepiece_model_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        check_tokenizer(tmp_path)


def tekken(**changes: Any) -> str:
    tokens = [bytes([byte]) for byte in range(256)] + [b"th", b"the", b" c", b"unused"]
    content = {
        "config": {"pattern": "", "default_vocab_size": 279, "default_num_special_tokens": 20},
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for rank, token in enumerate(tokens)
        ],
        "special_tokens": [{"rank": 1, "token_str": "<s>", "is_control": True}],
    }
    return json.dumps(content | changes)


def test_a_tekken_file_is_converted(tmp_path: Path) -> None:
    (tmp_path / "tekken.json").write_text(tekken())
    tokenizer = converted(tmp_path)
    expected = [1, 20 + 257, 20 + 258, 20 + ord("a"), 20 + ord("t")]
    assert tokenizer.encode("the cat", add_special_tokens=True) == expected
    assert tokenizer.encode("[INST]é", add_special_tokens=False) == [3, 20 + 0xC3, 20 + 0xA9]
    assert tokenizer.vocab_size == 279


@pytest.mark.parametrize(
    "content", [tekken(vocab=[{"rank": 0, "token_bytes": "%"}]), tekken(config={}), "{", tekken(vocab=7)]
)
def test_a_damaged_tekken_file_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "tekken.json").write_text(content)
    with pytest.raises(ModelError, match=r"tekken.json is invalid") as caught:
        check_tokenizer(tmp_path)
    assert "\n" not in caught.value.message


def test_a_vocabulary_and_its_merges_are_converted(tmp_path: Path) -> None:
    vocabulary = {token: index for index, token in enumerate([*"thecaĠ1", "th", "the", "<end>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    added = {"9": {"content": "<end>", "special": True}}
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = converted(tmp_path)
    assert tokenizer.encode("the<end> 11", add_special_tokens=True) == [8, 9, 5, 6, 6]
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BlenderbotTokenizer"}')
    with pytest.raises(ModelError, match=r"vocab.json: the vocabulary of a BlenderbotTokenizer"):
        check_tokenizer(tmp_path)


def test_a_model_without_a_tokenizer_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer.json: save it as tokenizer.json with AutoTok"):
        check_tokenizer(tmp_path)
    (tmp_path / "qwen.tiktoken").write_text("IQ== 0")
    with pytest.raises(ModelError, match=r"has no tokenizer.json: qwen.tiktoken can't be converted; save"):
        check_tokenizer(tmp_path)
