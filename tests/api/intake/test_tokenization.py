"""Prompts are tokenized in pieces, and refused as early as possible."""

from __future__ import annotations

from typing import Any

import pytest
from support.api_fakes import a_server, byte_tokenizer

from fllm.errors import ContextTooLong, RequestError
from fllm.requests.completions import CompletionRequest
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard
from fllm_api.intake import tokenization
from fllm_api.intake.completions import prepare_completion
from fllm_api.intake.tokenization import tokenize_prompt


class Recording(Tokenizer):
    """A tokenizer that records the texts that it encodes. Its longest token has 100 characters."""

    def __init__(self) -> None:
        inner = byte_tokenizer(["x" * 100])
        super().__init__(inner._inner, {})
        self.texts: list[str] = []

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        self.texts.append(text)
        return super().encode(text, add_special_tokens=add_special_tokens)


def tokenize(text: str, tokenizer: Tokenizer, context: int) -> tuple[list[int], list[int]]:
    """Return the token ids of a text and the costs of the pieces."""
    card = ModelCard(tokenizer="", max_model_len=context, eos_token_ids=())
    work = tokenize_prompt(text, tokenizer, card, add_special_tokens=True, param="prompt")
    costs: list[int] = []
    while True:
        try:
            costs.append(next(work))
        except StopIteration as done:
            return done.value, costs


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenization, "PIECE_CHARS", 10)


@pytest.mark.usefixtures("small_pieces")
def test_a_text_that_does_not_fit_is_refused_after_its_first_pieces() -> None:
    tokenizer = Recording()
    with pytest.raises(ContextTooLong, match="has 999 characters, of which the first 50 are 50 tokens"):
        tokenize("a" * 999, tokenizer, 20)
    assert tokenizer.texts == ["a" * 10] * 5


def test_a_text_of_usual_length_is_tokenized_once() -> None:
    tokenizer = Recording()
    ids, costs = tokenize("hello", tokenizer, 20)
    assert (len(ids), costs, tokenizer.texts) == (5, [5], ["hello"])


@pytest.mark.usefixtures("small_pieces")
def test_an_unusually_long_text_that_fits_is_whole_and_charged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenization, "USUAL_CHARS_PER_TOKEN", 0.5)
    ids, costs = tokenize("hello, hello, hello", Recording(), 20)
    assert len(ids) == sum(costs) == 19
    assert len(costs) == 3


@pytest.mark.parametrize(
    "invalid",
    [
        {"n": 128, "best_of": 1},
        {"logit_bias": {2**20: 1}},
        {"stop": ["x" * 1000] * 20},
        {"max_tokens": 0},
        {"guided_json": {}, "guided_regex": "x"},
        {"prompt": ["a"] * 3000},
        {"prompt": ["a", "x" * 60_000]},
    ],
)
def test_other_fields_are_checked_before_any_prompt_is_tokenized(invalid: dict[str, Any]) -> None:
    tokenizer = Recording()
    body = CompletionRequest(**{"model": "m", "prompt": "text", **invalid})
    with pytest.raises(RequestError):
        for _ in prepare_completion(body, a_server(tokenizer=tokenizer)):
            pass
    assert tokenizer.texts == []


def test_the_longest_prompt_is_tokenized_first_so_that_one_that_does_not_fit_costs_only_itself() -> None:
    tokenizer = Recording()
    body = CompletionRequest(model="m", prompt=["a", "b" * 600, "c"])
    with pytest.raises(ContextTooLong):
        for _ in prepare_completion(body, a_server(tokenizer=tokenizer)):
            pass
    assert tokenizer.texts == ["b" * 600]
