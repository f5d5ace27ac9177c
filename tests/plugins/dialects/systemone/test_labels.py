"""Labels are one token each after a model's prompt."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Inner

from fllm import RequestError
from fllm.tokenizer import Tokenizer
from fllm_dialects.systemone.labels import LabelTokens


def words(*merged: str) -> Tokenizer:
    """Return a tokenizer with a token per byte, and one for each of these words of two letters."""
    pieces = [word.replace(" ", "Ġ") for word in merged]
    names = dict.fromkeys([*sorted(pre_tokenizers.ByteLevel.alphabet()), *pieces])
    inner = Inner(
        models.BPE({name: i for i, name in enumerate(names)}, [(word[0], word[1]) for word in pieces])
    )
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken("<|assistant|>", special=True)])
    return Tokenizer(inner, {})


def tokens_of(tokenizer: Tokenizer, prompt: str = "<|assistant|>") -> LabelTokens:
    return LabelTokens(tokenizer, tokenizer.encode(prompt, add_special_tokens=False))


def test_letters_digits_and_words_are_used_where_they_are_tokens() -> None:
    tokens = tokens_of(words("No", "no", " A"))
    assert [label.text for label in tokens.yes_or_no()] == ["A", "B"], "Yes is several tokens"
    assert [label.text for label in tokens.levels(3)] == ["0", "1", "2"]
    assert [label.text for label in tokens.letters(3)] == ["A", "B", "C"]


def test_a_label_has_all_of_its_spellings() -> None:
    tokenizer = words(" A")
    first, second = tokens_of(tokenizer).letters(2)
    assert first.token_ids == (tokenizer.token_to_id("A"), tokenizer.token_to_id("ĠA"))
    assert second.token_ids == (tokenizer.token_to_id("B"),)


def test_a_label_that_joins_the_end_of_the_prompt_is_left_out() -> None:
    tokens = tokens_of(words("xB"), "<|assistant|>x")
    assert [label.text for label in tokens.letters(3)] == ["A", "C", "D"]


def test_pairs_of_letters_follow_the_letters() -> None:
    tokens = tokens_of(words("AC", "BA"))
    assert [label.text for label in tokens.letters(28)][24:] == ["Y", "Z", "AC", "BA"]
    assert [label.text for label in tokens.levels(11)][-1] == "K"
    with pytest.raises(RequestError, match="can have 28 options with this model, and has 29"):
        tokens.letters(29)


def test_yes_and_no_are_words_of_a_real_vocabulary(embedded_tokenizer: Tokenizer) -> None:
    tokens = tokens_of(embedded_tokenizer, "<|im_start|>assistant\n")
    yes, no = tokens.yes_or_no()
    assert (yes.text, no.text) == ("Yes", "No")
    assert {embedded_tokenizer.token_text(token) for token in yes.token_ids} == {"Yes", "yes", " Yes", " yes"}
    assert not {*yes.token_ids} & {*no.token_ids}
    assert len(tokens.letters(255)) == 255
