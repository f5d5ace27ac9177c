from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.batching.ngram_drafter import INITIAL_WIDTH, MAX_PAUSE, NgramDrafter
from fllm.config import Speculation

SPELLED = b'{"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 4, "prompt_lookup_min": 2}'


def drafter(tokens: int = 8, longest: int = 3, shortest: int = 2, width: int | None = None) -> NgramDrafter:
    """Return a drafter that drafts ``width`` tokens at first, or its default number."""
    made = NgramDrafter(
        Speculation(
            method="ngram",
            num_speculative_tokens=tokens,
            prompt_lookup_max=longest,
            prompt_lookup_min=shortest,
        )
    )
    if width is not None:
        made.update(width, width)
    return made


def test_what_followed_the_last_tokens_is_guessed_again():
    assert drafter(tokens=3, width=3).draft([1, 2, 3, 4, 5, 6, 1, 2], max_drafts=10) == [3, 4, 5]


def test_the_longest_ngram_counts_and_of_its_places_the_latest():
    assert drafter(tokens=1).draft([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], max_drafts=9) == [4]
    assert drafter(tokens=1).draft([2, 3, 4, 9, 2, 3, 5, 1, 2, 3], max_drafts=9) == [5]


def test_shorter_ngrams_than_allowed_are_no_reason_to_guess():
    assert drafter().draft([1, 2, 3, 4, 2], max_drafts=9) == []
    assert drafter(shortest=1).draft([1, 2, 3, 4, 2], max_drafts=2) == [3]
    assert drafter().draft([1], max_drafts=9) == []


def test_a_text_that_repeats_itself_at_once_is_continued_beyond_its_end():
    assert drafter(width=4).draft([7, 1, 2, 1, 2], max_drafts=9) == [1, 2, 1, 2, 1, 2, 1, 2]
    assert drafter(width=4).draft([5, 5, 5], max_drafts=4) == [5, 5, 5, 5]


@given(st.lists(st.integers(1, 3), min_size=1, max_size=40), st.lists(st.integers(1, 3), max_size=20))
def test_an_index_that_grew_guesses_like_one_that_was_made_at_once(before: list[int], after: list[int]):
    grown, text = drafter(width=4), list(before)
    for token in after:
        grown.draft(text, max_drafts=3)
        text.append(token)
    assert grown.draft(text, max_drafts=3) == drafter(width=4).draft(text, max_drafts=3)


def test_guesses_grow_while_they_are_right():
    text, ngrams, widths = [1, 2, 3] * 9, drafter(tokens=6), []
    for _ in range(5):
        widths.append(len(ngrams.draft(text, max_drafts=99)))
        ngrams.update(widths[-1], widths[-1])
    assert widths == [INITIAL_WIDTH, 2, 4, 6, 6]
    ngrams.update(6, 3)
    assert len(ngrams.draft(text, max_drafts=99)) == 3


def test_a_drafter_that_is_always_wrong_drafts_rarely():
    text, ngrams = [1, 2] * 9, drafter()
    pauses = [0]
    for _ in range(400):
        if guess := ngrams.draft(text, max_drafts=9):
            assert len(guess) == INITIAL_WIDTH
            ngrams.update(len(guess), 0)
            pauses.append(0)
        else:
            pauses[-1] += 1
    assert pauses[:7] == [0, 0, 1, 3, 7, 15, 31]
    assert max(pauses) == MAX_PAUSE


def test_the_options_are_spelled_as_vllm_spells_them():
    speculation = msgspec.json.decode(SPELLED, type=Speculation)
    assert (speculation.num_speculative_tokens, speculation.prompt_lookup_max) == (5, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "eagle"}, "'eagle'"),
        ({"num_speculative_tokens": 0}, "num_speculative_tokens"),
        ({"prompt_lookup_min": 5}, "prompt_lookup_min is 5 and prompt_lookup_max is 4"),
        ({"disable_by_batch_size": 0}, "disable_by_batch_size"),
        ({"draft_model": "small"}, "draft_model"),
    ],
)
def test_bad_options_are_rejected_by_their_name(change: dict[str, Any], message: str):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(msgspec.json.decode(SPELLED) | change, Speculation)
