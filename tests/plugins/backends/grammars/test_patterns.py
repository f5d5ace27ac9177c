from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_backends.grammars.patterns import matches, parse_pattern

PATTERNS = ["a*b", "(a|ab)(c|bcd)", "(a{2,3}){1,2}", "[^a]|a[bc]?", "(ab|a)*", "a{0,2}b{2}", "(a*)*b|c+"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_match_is_that_of_python(pattern: str) -> None:
    node = parse_pattern(pattern, full_match=True)

    @given(st.text("abcd", max_size=8))
    def check(text: str) -> None:
        assert matches(node, text) == bool(re.fullmatch(pattern, text))

    check()


def test_a_hostile_pattern_takes_polynomial_time() -> None:
    node = parse_pattern("((a+)+)+$", full_match=True)
    began = time.process_time()
    assert not matches(node, "a" * 60 + "b")
    assert time.process_time() - began < 5  # exponential time would be years
