"""Forced text is tokenized as the model's tokenizer would inside a text, whatever its kind."""

from __future__ import annotations

from functools import partial

import pytest
from support.tokenizers_by_kind import SPECIAL, TOKENIZERS, ids_of

from fllm import ModelCard
from fllm.structured_output.interfaces import Vocabulary, read_vocabulary
from fllm.tokenizer import Tokenizer
from fllm_backends.grammars.llguidance import _VocabularyAdapter


def tokenize(tokenizer: Tokenizer, text: str) -> tuple[list[int], Vocabulary]:
    card = ModelCard(tokenizer="", max_model_len=1, eos_token_ids=())
    vocabulary = read_vocabulary(card, tokenizer)
    return _VocabularyAdapter(vocabulary, partial(tokenizer.encode, add_special_tokens=False))(
        text
    ), vocabulary


@pytest.mark.parametrize("name", ["byte_level", "llama2", "gemma"])
@pytest.mark.parametrize("text", ["lo", " a", "a lo", "<think>a", "한", "lo" * 50])
def test_the_tokens_are_those_of_the_text_and_no_others(name: str, text: str) -> None:
    tokens, vocabulary = tokenize(TOKENIZERS[name], text)
    assert b"".join(vocabulary.tokens[each] for each in tokens) == text.encode()


@pytest.mark.parametrize("name", ["llama2", "gemma"])
def test_no_space_is_put_before_a_text_within_a_text(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert tokenize(tokenizer, "lo")[0] == ids_of(tokenizer, "lo")
    assert tokenize(tokenizer, " Hellolo")[0] == ids_of(tokenizer, "▁Hello", "lo")


def test_added_tokens_are_used_and_hidden_ones_are_text() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    assert tokenize(tokenizer, "<think>")[0] == ids_of(tokenizer, "<think>")
    hidden = tokenize(tokenizer, SPECIAL[2])[0]
    assert len(hidden) == len(SPECIAL[2])
    assert not {*hidden} & tokenizer.special_ids
