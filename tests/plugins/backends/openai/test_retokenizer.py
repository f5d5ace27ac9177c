"""Pieces of text become ids that decode to the same text."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from fllm.pipeline.detokenizer import Detokenizer
from fllm.tokenizer import Tokenizer
from fllm_backends.openai.retokenizer import ByteAlphabet, Retokenizer


def byte_level(normalizer: normalizers.Normalizer | None = None) -> tokenizers.Tokenizer:
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa", "Ġaa"]
    merges = [("Ġ", "a"), ("Ġa", "a")]
    inner = tokenizers.Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=merges)
    )
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.add_special_tokens(["<s>", "<|end|>"])
    return inner


def sentence_piece(decoder: decoders.Decoder) -> tokenizers.Tokenizer:
    pieces = ["<unk>", "▁", "▁▁", "▁Hello", "lo", "é", "€", "a", "▁a", "."]
    vocab = [(piece, -1.0) for piece in pieces + [f"<0x{byte:02X}>" for byte in range(256)]]
    inner = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoder
    inner.add_special_tokens(["<s>", "<|end|>"])
    return inner


LLAMA_2 = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
TOKENIZERS = {
    "byte_level": byte_level(),
    "byte_level_that_normalizes": byte_level(normalizers.NFC()),
    "llama2": sentence_piece(decoders.Sequence(LLAMA_2)),
    "gemma": sentence_piece(decoders.Sequence(LLAMA_2[:3])),
}
every_tokenizer = pytest.mark.parametrize(
    "tokenizer", [Tokenizer(inner, {}) for inner in TOKENIZERS.values()], ids=TOKENIZERS.keys()
)
PIECES = st.lists(
    st.text("Helo a.é€😀\u0301\n\ufffd", max_size=6)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    | st.sampled_from([" Hello", "<|end|>", "  ", "▁", "<0x41>"]),
    max_size=6,
)


def retokenize(tokenizer: Tokenizer, pieces: list[str], context: list[int]) -> list[int]:
    retokenizer = Retokenizer(tokenizer, ByteAlphabet(tokenizer), context)
    return [token_id for piece in pieces for token_id in retokenizer.feed(piece)]


def text_of(tokenizer: Tokenizer, ids: list[int], context: list[int]) -> str:
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=False, context=context)
    return "".join(map(detokenizer.feed, ids)) + detokenizer.finish()


@every_tokenizer
@given(pieces=PIECES, prompt=st.sampled_from(["", "a", "Hello", "a ", "<s>", "é", "\n", "<s>Hello"]))
def test_the_ids_decode_to_the_same_text_after_the_prompt(
    tokenizer: Tokenizer, pieces: list[str], prompt: str
) -> None:
    context = tokenizer.encode(prompt, add_special_tokens=False)
    if not context:
        context = tokenizer.encode("<s>", add_special_tokens=False)
    # U+2581 is how SentencePiece writes a space: its decoders make one of it, and no token is that character.
    pieces = [piece if tokenizer.byte_level else piece.replace("▁", "") for piece in pieces]
    ids = retokenize(tokenizer, pieces, context)
    assert text_of(tokenizer, ids, context) == "".join(pieces)


def test_whole_words_are_whole_tokens() -> None:
    tokenizer = Tokenizer(TOKENIZERS["llama2"], {})
    [start] = tokenizer.encode("<s>", add_special_tokens=False)
    ids = retokenize(tokenizer, [" Hello", " a", ".", "\n"], [start])
    assert ids == [tokenizer.token_to_id(token) for token in ("▁Hello", "▁a", ".", "<0x0A>")]


@every_tokenizer
def test_a_special_token_that_is_spelled_out_is_that_token(tokenizer: Tokenizer) -> None:
    context = tokenizer.encode("a", add_special_tokens=False)
    assert retokenize(tokenizer, ["<|end|>"], context) == [tokenizer.token_to_id("<|end|>")]


def test_a_vocabulary_that_cannot_encode_a_text_encodes_what_it_can() -> None:
    inner = tokenizers.Tokenizer(models.WordLevel({"one": 0, "two": 1, "[UNK]": 2}, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    assert retokenize(Tokenizer(inner, {}), ["one", "three"], [1]) == [0, 2]
