from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fllm_backends.drafters.ngram import NgramIndex


def index(longest: int = 3, shortest: int = 2) -> NgramIndex:
    return NgramIndex(shortest, longest)


def test_what_followed_the_last_tokens_is_guessed_again():
    assert index().draft([1, 2, 3, 4, 5, 6, 1, 2], 3) == [3, 4, 5]


def test_the_longest_ngram_counts_and_of_its_places_the_latest():
    assert index().draft([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 1) == [4]
    assert index().draft([2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 1) == [5]


def test_shorter_ngrams_than_allowed_are_no_reason_to_guess():
    assert index().draft([1, 2, 3, 4, 2], 9) == []
    assert index(shortest=1).draft([1, 2, 3, 4, 2], 1) == [3]
    assert index().draft([1], 9) == []


def test_a_text_that_repeats_itself_at_once_is_continued_beyond_its_end():
    assert index().draft([7, 1, 2, 1, 2], 8) == [1, 2, 1, 2, 1, 2, 1, 2]
    assert index().draft([5, 5, 5], 4) == [5, 5, 5, 5]


@given(st.lists(st.integers(1, 3), min_size=1, max_size=40), st.lists(st.integers(1, 3), max_size=20))
def test_an_index_that_grew_guesses_like_one_that_was_made_at_once(before: list[int], after: list[int]):
    grown, text = index(), list(before)
    for token in after:
        grown.draft(text, 3)
        text.append(token)
    assert grown.draft(text, 3) == index().draft(text, 3)
