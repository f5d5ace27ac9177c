"""Prefixes of markers at the end of a text."""

import pytest

from fllm.parsing.partial_match import longest_overlap, overlap


@pytest.mark.parametrize(
    ("text", "marker", "length"),
    [
        ("", "<a>", 0),
        ("x", "<a>", 0),
        ("x<", "<a>", 1),
        ("x<a", "<a>", 2),
        ("<a>", "<a>", 0),
        ("aa", "aab", 2),
        ("aaa", "aab", 2),
        ("abab", "ababc", 4),
    ],
)
def test_the_longest_beginning_of_a_marker_counts(text: str, marker: str, length: int) -> None:
    assert overlap(text, marker) == length


def test_the_marker_that_holds_back_most_decides() -> None:
    assert longest_overlap("x</th", ["<think>", "</think>", "h"]) == 4
    assert longest_overlap("x", []) == 0
