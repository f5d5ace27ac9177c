"""Loading a tokenizer, encoding, and the bytes of single tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tokenizers
from support.tokenizers_by_kind import BYTE_LEVEL, SPECIAL, TOKENIZERS, byte_level, ids_of
from tokenizers import processors

from fllm.errors import ModelError
from fllm.tokenizer import Tokenizer


def save(inner: tokenizers.Tokenizer, directory: Path, config: object = None) -> Path:
    inner.save(str(directory / "tokenizer.json"))
    if config is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    ("name", "token", "expected"),
    [
        ("byte_level", "Ġworld", b" world"),
        ("byte_level", "ðŁ", b"\xf0\x9f"),
        ("byte_level", "<｜User｜>", "<｜User｜>".encode()),
        ("byte_level", "with space", b"with space"),
        ("byte_level", "<s>", b"<s>"),
        ("llama2", "▁Hello", b" Hello"),
        ("llama2", "▁", b" "),
        ("llama2", "▁▁▁", b"   "),
        ("llama2", "<0x0A>", b"\n"),
        ("llama2", "<0xF0>", b"\xf0"),
        ("llama2", "</s>", b"</s>"),
        ("t5", "▁▁", b"  "),
        ("gemma", "▁x▁", b" x "),
        ("word_level", "<0x41>", b" <0x41>"),
        ("word_piece", "##ing", b"ing"),
    ],
)
def test_bytes_of_a_token_are_what_it_adds_to_a_text(name: str, token: str, expected: bytes) -> None:
    (token_id,) = ids_of(TOKENIZERS[name], token)
    assert TOKENIZERS[name].token_bytes(token_id) == expected
    assert TOKENIZERS[name].token_text(token_id) == expected.decode(errors="replace")


def test_an_unknown_id_has_no_bytes() -> None:
    assert BYTE_LEVEL.token_bytes(BYTE_LEVEL.vocab_size) == b""


def test_special_encoding_follows_the_post_processor(tmp_path: Path) -> None:
    inner = byte_level()
    bos = inner.token_to_id("<s>")
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    tokenizer = Tokenizer.load(save(inner, tmp_path))
    bare = tokenizer.encode("a<s>", add_special_tokens=False)
    assert bare == [*ids_of(tokenizer, "a"), bos]
    assert tokenizer.encode("a<s>", add_special_tokens=True) == [bos, *bare]


def test_load_reads_special_tokens_in_either_notation(tmp_path: Path) -> None:
    config = {
        "bos_token": {"content": "<s>", "lstrip": False},
        "eos_token": "</s>",
        "pad_token": None,
        "image_token": "<|tool|>",
        "add_bos_token": True,
    }
    tokenizer = Tokenizer.load(save(byte_level(), tmp_path, config))
    assert tokenizer.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "image_token": "<|tool|>"}
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert tokenizer.special_ids == set(ids_of(tokenizer, *SPECIAL))


def test_load_needs_no_configuration(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(save(byte_level(), tmp_path))
    assert (tokenizer.bos_token, tokenizer.eos_token, dict(tokenizer.special_tokens)) == (None, None, {})


def test_load_disables_truncation_and_padding(tmp_path: Path) -> None:
    inner = byte_level()
    inner.enable_truncation(3)
    inner.enable_padding(length=8)
    tokenizer = Tokenizer.load(save(inner, tmp_path))
    assert [len(tokenizer.encode(text, add_special_tokens=True)) for text in ("ab", "abcdef")] == [2, 6]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "tokenizer.json"),
        ({"tokenizer.json": "{"}, "tokenizer.json"),
        ({"tokenizer.json": byte_level().to_str(), "tokenizer_config.json": "[]"}, "tokenizer_config.json"),
        ({"tokenizer.json": byte_level().to_str(), "tokenizer_config.json": "{"}, "tokenizer_config.json"),
    ],
)
def test_load_names_the_invalid_file(tmp_path: Path, files: dict[str, str], named: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError) as caught:
        Tokenizer.load(tmp_path)
    assert str(tmp_path / named) in caught.value.message
    assert "\n" not in caught.value.message


def test_threads_may_encode_at_the_same_time() -> None:
    texts = [f"Hello {i} 😀" * 50 for i in range(32)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: BYTE_LEVEL.encode(text, add_special_tokens=False), texts))
    assert together == [BYTE_LEVEL.encode(text, add_special_tokens=False) for text in texts]


def test_importing_the_module_does_not_import_the_library() -> None:
    script = "import sys, fllm.tokenizer; sys.exit('tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
