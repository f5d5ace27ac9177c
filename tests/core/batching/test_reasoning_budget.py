"""The end of reasoning is forced after a number of tokens, whatever the tokens of the markers are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.api_fakes import byte_tokenizer, spell

from fllm.batching.reasoning_budget import ReasoningBudget
from fllm.tokenizer import Tokenizer
from fllm.values import ReasoningLimit

WORDS = ("<think>", "</think>", "</thi", "nk>\n\n", ">\n", "ab", "abc", "a</think>b", "<tool_call>", "é")
TOKENIZER = byte_tokenizer(WORDS)
END = TOKENIZER.encode("</think>", add_special_tokens=False)


def limit(max_tokens: int, *, inside: bool = True, reopens: bool = False) -> ReasoningLimit:
    return ReasoningLimit(
        max_tokens=max_tokens,
        opening=("<think>",),
        closing=("</think>", "<tool_call>"),
        end="</think>",
        inside=inside,
        reopens=reopens,
    )


def write(budget: ReasoningBudget, script: Sequence[str], *, count: int = 200) -> list[str]:
    """Return the pieces of an output: those of the script, except where the budget forces others."""
    pieces, rest = list[str](), list(script)
    while (rest or budget.forced_token is not None) and len(pieces) < count:
        if budget.forced_token is not None:
            budget.accept(token := budget.forced_token)
            pieces.append("!" + TOKENIZER.token_text(token))
        else:
            budget.accept(spell(TOKENIZER, rest[0]))
            pieces.append(rest.pop(0))
    return pieces


def forced(max_tokens: int, script: Sequence[str], **options: bool) -> str:
    return "".join(write(ReasoningBudget(limit(max_tokens, **options), TOKENIZER), script))


FORCED = "".join("!" + character for character in "</think>")


@pytest.mark.parametrize(
    ("max_tokens", "script", "written"),
    [
        (0, ["ab", "a"], FORCED + "aba"),
        (1, ["ab", "a"], "ab" + FORCED + "a"),
        (2, ["ab", "a", "a"], "aba" + FORCED + "a"),
        (3, ["ab", "a"], "aba"),
        (3, ["ab", "</think>", "ab", "ab", "ab", "ab"], "ab</think>abababab"),
        (4, ["ab", "</thi", "nk>\n\n", "ab", "ab", "ab"], "ab</think>\n\nababab"),
        (2, ["a</think>b", "ab", "ab", "ab"], "a</think>bababab"),
        (2, ["<tool_call>", "ab", "ab", "ab"], "<tool_call>ababab"),
        (2, ["</think>", "<think>", "ab", "ab", "ab"], "</think><think>ababab"),
    ],
    ids=str,
)
def test_the_end_is_forced_only_within_the_reasoning(
    max_tokens: int, script: list[str], written: str
) -> None:
    assert forced(max_tokens, script) == written


@pytest.mark.parametrize(
    ("script", "written"),
    [
        (["<think>", "ab", "ab"], "<think>ab" + FORCED + "ab"),
        (["\n", "<think>", "ab", "ab"], "\n<think>ab" + FORCED + "ab"),
        (["<", "t", "h", "i", "n", "k", ">", "ab", "ab"], "<think>ab" + FORCED + "ab"),
        (["ab", "ab", "ab", "<think>", "ab", "ab"], "ababab<think>abab"),
        (["<", "ab", "<think>", "ab", "ab"], "<ab<think>abab"),
    ],
    ids=str,
)
def test_reasoning_that_a_marker_must_open_begins_at_the_beginning(script: list[str], written: str) -> None:
    assert forced(1, script, inside=False) == written


def test_reasoning_that_may_begin_again_has_one_budget() -> None:
    script = ["<think>", "ab", "</think>", "ab", "ab", "<think>", "ab", "ab"]
    written = "<think>ab</think>abab<think>ab" + FORCED + "ab"
    assert forced(2, script, inside=False, reopens=True) == written


def test_the_end_does_not_divide_a_character() -> None:
    first, second = TOKENIZER.encode("é", add_special_tokens=False)
    budget = ReasoningBudget(limit(1), TOKENIZER)
    budget.accept(first)
    assert budget.forced_token is None
    budget.accept(second)
    assert budget.forced_token == END[0]


def test_an_end_that_a_grammar_does_not_allow_is_forced_again() -> None:
    budget = ReasoningBudget(limit(0), TOKENIZER)
    assert budget.forced_token == END[0]
    budget.accept(spell(TOKENIZER, "ab"))
    assert budget.forced_token == END[0]
    for token in END:
        assert budget.forced_token == token
        budget.accept(token)
    assert budget.forced_token is None


@given(st.integers(0, 6), st.lists(st.sampled_from([*WORDS[:-1], "<", "\n", "x"]), max_size=20))
def test_no_more_than_the_maximum_is_within_the_reasoning(max_tokens: int, script: list[str]) -> None:
    pieces = write(ReasoningBudget(limit(max_tokens), TOKENIZER), script)
    text, inside = "", 0
    for piece in pieces:
        text += piece.removeprefix("!")
        if "</think>" in text or "<tool_call>" in text:
            break
        inside += not piece.startswith("!")
    assert inside <= max_tokens


def test_the_tokens_are_those_of_the_tokenizer() -> None:
    assert isinstance(TOKENIZER, Tokenizer)
    assert len(END) == len("</think>")
