"""The tokenizer, and its way back from ids to text one token at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from fllm.errors import ModelError
from fllm.pipeline.detokenizer import Detokenizer
from fllm.tokenizer import Tokenizer

SPECIAL = ["<s>", "</s>", "<|tool|>"]
WORDS = ["Hel", "lo", "Ġworld", "ĠĠ", "âĤ¬", "ðŁ", "ĺĢ"]


def byte_level() -> tokenizers.Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = models.BPE(vocab={token: i for i, token in enumerate(alphabet + WORDS)}, merges=[])
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(SPECIAL)
    inner.add_tokens(
        [AddedToken("<｜User｜>"), AddedToken("with space"), AddedToken("<think>"), AddedToken("éé")]
    )
    return inner


def sentencepiece(decoder: decoders.Decoder) -> tokenizers.Tokenizer:
    pieces = ["<unk>", "▁", "▁▁", "▁▁▁", "▁Hello", "lo", "é", "€", "😀", "a", "▁a", "▁x▁"]
    vocab = [(piece, -1.0) for piece in pieces + [f"<0x{byte:02X}>" for byte in range(256)]]
    inner = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoder
    inner.add_special_tokens(SPECIAL)
    inner.add_tokens([AddedToken("<think>")])
    return inner


def llama2() -> tokenizers.Tokenizer:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return sentencepiece(decoders.Sequence(steps))


def gemma() -> tokenizers.Tokenizer:
    return sentencepiece(
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    )


def t5() -> tokenizers.Tokenizer:
    return sentencepiece(decoders.Metaspace())


def word_level() -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.WordLevel({"one": 0, "two": 1, "[UNK]": 2, "<0x41>": 3}, "[UNK]"))
    inner.add_special_tokens(SPECIAL)
    return inner


def word_piece() -> tokenizers.Tokenizer:
    vocab = {"play": 0, "##ing": 1, ",": 2, "[UNK]": 3, "n't": 4, "do": 5}
    inner = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    inner.decoder = decoders.WordPiece()
    inner.add_special_tokens(SPECIAL)
    return inner


BUILDERS = {f.__name__: f for f in (byte_level, llama2, gemma, t5, word_level, word_piece)}
TOKENIZERS = {name: Tokenizer(build(), {}) for name, build in BUILDERS.items()}
BYTE_LEVEL = TOKENIZERS["byte_level"]
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


def ids_of(tokenizer: Tokenizer, *tokens: str) -> list[int]:
    ids = [tokenizer.token_to_id(token) for token in tokens]
    return [i for i in ids if i is not None]


def pieces_of(
    tokenizer: Tokenizer, ids: list[int], *, skip_special_tokens: bool, visible: tuple[str, ...] = ()
) -> list[str]:
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip_special_tokens, visible=visible)
    return [detokenizer.feed(i) for i in ids] + [detokenizer.finish()]


def save(inner: tokenizers.Tokenizer, directory: Path, config: object = None) -> Path:
    inner.save(str(directory / "tokenizer.json"))
    if config is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@every_tokenizer
@given(data=st.data(), skip_special_tokens=st.booleans())
def test_the_pieces_joined_are_what_decode_makes_of_all_ids(
    tokenizer: Tokenizer, data: st.DataObject, skip_special_tokens: bool
) -> None:
    # One id more than there is: an unknown one adds nothing.
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size), max_size=30))
    pieces = pieces_of(tokenizer, ids, skip_special_tokens=skip_special_tokens)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


@every_tokenizer
@given(data=st.data())
def test_runs_of_few_tokens_decode_alike(tokenizer: Tokenizer, data: st.DataObject) -> None:
    few = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), min_size=1, max_size=3))
    ids = data.draw(st.lists(st.sampled_from(few), max_size=40))
    assert "".join(pieces_of(tokenizer, ids, skip_special_tokens=False)) == tokenizer.decode(
        ids, skip_special_tokens=False
    )


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_goes_through_a_byte_level_vocabulary_and_back(text: str) -> None:
    pieces = pieces_of(
        BYTE_LEVEL, BYTE_LEVEL.encode(text, add_special_tokens=False), skip_special_tokens=False
    )
    assert "".join(pieces) == text
    assert all(piece in text for piece in pieces)


@every_tokenizer
@given(text=st.text("Hello ñ€😀 \U0001f468\u200d", max_size=12))
def test_no_piece_holds_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    whole = tokenizer.decode(ids, skip_special_tokens=False)
    assert all(
        "\N{REPLACEMENT CHARACTER}" not in piece
        for piece in pieces_of(tokenizer, ids, skip_special_tokens=False)
    )
    assert "\N{REPLACEMENT CHARACTER}" not in whole


@given(st.binary(max_size=12))
def test_bytes_that_are_no_text_are_replaced_as_decode_does(data: bytes) -> None:
    ids = [byte_id(byte) for byte in data]
    pieces = "".join(pieces_of(BYTE_LEVEL, ids, skip_special_tokens=False))
    assert pieces == BYTE_LEVEL.decode(ids, skip_special_tokens=False) == data.decode(errors="replace")


def byte_id(byte: int) -> int:
    return next(i for i in range(256) if BYTE_LEVEL.token_bytes(i) == bytes([byte]))


def test_a_character_is_given_with_its_last_token() -> None:
    assert pieces_of(BYTE_LEVEL, ids_of(BYTE_LEVEL, "Hel", "ðŁ", "ĺĢ", "lo"), skip_special_tokens=False) == [
        "Hel", "", "😀", "lo", "",
    ]  # fmt: skip


def test_half_a_character_at_the_end_is_given_by_finish() -> None:
    assert pieces_of(BYTE_LEVEL, ids_of(BYTE_LEVEL, "lo", "ðŁ"), skip_special_tokens=False) == ["lo", "", "�"]


def test_a_run_of_byte_tokens_waits_for_its_end() -> None:
    tokenizer = TOKENIZERS["llama2"]
    ids = ids_of(tokenizer, "▁Hello", "<0xE2>", "<0x82>", "<0xAC>", "lo", "<0x0A>")
    assert pieces_of(tokenizer, ids, skip_special_tokens=False) == ["Hello", "", "", "", "€lo", "", "\n"]


def test_a_stripped_space_stays_inside_the_text() -> None:
    tokenizer = TOKENIZERS["llama2"]
    ids = ids_of(tokenizer, "▁", "▁", "▁Hello", "▁", "▁a")
    assert pieces_of(tokenizer, ids, skip_special_tokens=False) == ["", " ", " Hello", " ", " a", ""]


def test_a_text_that_goes_on_keeps_the_space_of_its_first_word() -> None:
    hello, a = ids_of(TOKENIZERS["llama2"], "▁Hello", "▁a")
    detokenizer = Detokenizer(Tokenizer(llama2(), {}), skip_special_tokens=True, context=[hello, a])
    assert [detokenizer.feed(hello), detokenizer.feed(a)] == [" Hello", " a"]


def test_special_tokens_are_dropped_but_for_the_visible_ones() -> None:
    ids = ids_of(BYTE_LEVEL, "<s>", "<|tool|>", "<think>", "lo", "</s>")
    assert "".join(pieces_of(BYTE_LEVEL, ids, skip_special_tokens=True)) == "<think>lo"
    assert (
        "".join(pieces_of(BYTE_LEVEL, ids, skip_special_tokens=True, visible=("<|tool|>", "nowhere")))
        == "<|tool|><think>lo"
    )
    assert "".join(pieces_of(BYTE_LEVEL, ids, skip_special_tokens=False)) == "<s><|tool|><think>lo</s>"


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


def test_load_reads_special_tokens_however_they_are_written(tmp_path: Path) -> None:
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


def test_load_forgets_truncation_and_padding(tmp_path: Path) -> None:
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
def test_load_names_the_file_that_is_no_good(tmp_path: Path, files: dict[str, str], named: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError) as caught:
        Tokenizer.load(tmp_path)
    assert str(tmp_path / named) in caught.value.message
    assert "\n" not in caught.value.message


def test_threads_may_encode_at_once() -> None:
    texts = [f"Hello {i} 😀" * 50 for i in range(32)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: BYTE_LEVEL.encode(text, add_special_tokens=False), texts))
    assert together == [BYTE_LEVEL.encode(text, add_special_tokens=False) for text in texts]


def test_importing_the_module_does_not_import_the_library() -> None:
    script = "import sys, fllm.tokenizer; sys.exit('tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
