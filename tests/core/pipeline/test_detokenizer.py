"""Token ids back to text, one token at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tokenizers_by_kind import BYTE_LEVEL, TOKENIZERS, ids_of, llama2

from fllm.interfaces import EVERY_SPECIAL_TOKEN
from fllm.pipeline.detokenizer import Detokenizer
from fllm.tokenizer import Tokenizer

every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


def pieces_of(
    tokenizer: Tokenizer, ids: list[int], *, skip_special_tokens: bool, visible: tuple[str, ...] = ()
) -> list[str]:
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip_special_tokens, visible=visible)
    return [detokenizer.feed(i) for i in ids] + [detokenizer.finish()]


@every_tokenizer
@given(data=st.data(), skip_special_tokens=st.booleans())
def test_the_joined_pieces_equal_the_decoded_ids(
    tokenizer: Tokenizer, data: st.DataObject, skip_special_tokens: bool
) -> None:
    # One id more than the vocabulary has: an unknown one adds nothing.
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size), max_size=30))
    pieces = pieces_of(tokenizer, ids, skip_special_tokens=skip_special_tokens)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


@every_tokenizer
@given(data=st.data())
def test_runs_of_few_tokens_decode_equally(tokenizer: Tokenizer, data: st.DataObject) -> None:
    few = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), min_size=1, max_size=3))
    ids = data.draw(st.lists(st.sampled_from(few), max_size=40))
    assert "".join(pieces_of(tokenizer, ids, skip_special_tokens=False)) == tokenizer.decode(
        ids, skip_special_tokens=False
    )


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_survives_a_byte_level_vocabulary(text: str) -> None:
    pieces = pieces_of(
        BYTE_LEVEL, BYTE_LEVEL.encode(text, add_special_tokens=False), skip_special_tokens=False
    )
    assert "".join(pieces) == text
    assert all(piece in text for piece in pieces)


@every_tokenizer
@given(text=st.text("Hello ñ€😀 \U0001f468\u200d", max_size=12))
def test_no_piece_has_an_incomplete_character(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    whole = tokenizer.decode(ids, skip_special_tokens=False)
    assert all(
        "\N{REPLACEMENT CHARACTER}" not in piece
        for piece in pieces_of(tokenizer, ids, skip_special_tokens=False)
    )
    assert "\N{REPLACEMENT CHARACTER}" not in whole


@given(st.binary(max_size=12))
def test_invalid_bytes_are_replaced_as_decode_does(data: bytes) -> None:
    ids = [byte_id(byte) for byte in data]
    pieces = "".join(pieces_of(BYTE_LEVEL, ids, skip_special_tokens=False))
    assert pieces == BYTE_LEVEL.decode(ids, skip_special_tokens=False) == data.decode(errors="replace")


def byte_id(byte: int) -> int:
    return next(i for i in range(256) if BYTE_LEVEL.token_bytes(i) == bytes([byte]))


def test_a_character_is_emitted_with_its_last_token() -> None:
    assert pieces_of(BYTE_LEVEL, ids_of(BYTE_LEVEL, "Hel", "ðŁ", "ĺĢ", "lo"), skip_special_tokens=False) == [
        "Hel", "", "😀", "lo", "",
    ]  # fmt: skip


def test_an_incomplete_character_at_the_end_is_emitted_by_finish() -> None:
    assert pieces_of(BYTE_LEVEL, ids_of(BYTE_LEVEL, "lo", "ðŁ"), skip_special_tokens=False) == ["lo", "", "�"]


def test_a_run_of_byte_tokens_waits_for_its_end() -> None:
    tokenizer = TOKENIZERS["llama2"]
    ids = ids_of(tokenizer, "▁Hello", "<0xE2>", "<0x82>", "<0xAC>", "lo", "<0x0A>")
    assert pieces_of(tokenizer, ids, skip_special_tokens=False) == ["Hello", "", "", "", "€lo", "", "\n"]


def test_a_stripped_space_stays_inside_the_text() -> None:
    tokenizer = TOKENIZERS["llama2"]
    ids = ids_of(tokenizer, "▁", "▁", "▁Hello", "▁", "▁a")
    assert pieces_of(tokenizer, ids, skip_special_tokens=False) == ["", " ", " Hello", " ", " a", ""]


def test_a_continued_text_keeps_the_space_of_its_first_word() -> None:
    hello, a = ids_of(TOKENIZERS["llama2"], "▁Hello", "▁a")
    detokenizer = Detokenizer(Tokenizer(llama2(), {}), skip_special_tokens=True, context=[hello, a])
    assert [detokenizer.feed(hello), detokenizer.feed(a)] == [" Hello", " a"]


def test_special_tokens_are_skipped_except_visible_ones() -> None:
    ids = ids_of(BYTE_LEVEL, "<s>", "<|tool|>", "<think>", "lo", "</s>")
    assert "".join(pieces_of(BYTE_LEVEL, ids, skip_special_tokens=True)) == "<think>lo"
    assert (
        "".join(pieces_of(BYTE_LEVEL, ids, skip_special_tokens=True, visible=("<|tool|>", "nowhere")))
        == "<|tool|><think>lo"
    )
    assert "".join(pieces_of(BYTE_LEVEL, ids, skip_special_tokens=False)) == "<s><|tool|><think>lo</s>"
    every = pieces_of(BYTE_LEVEL, ids, skip_special_tokens=True, visible=(EVERY_SPECIAL_TOKEN,))
    assert "".join(every) == "<s><|tool|><think>lo</s>"
