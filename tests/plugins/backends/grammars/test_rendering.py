"""Patterns rendered for the grammar libraries."""

import re

import pytest

from fllm_backends.grammars.patterns import parse_pattern
from fllm_backends.grammars.rendering import render_regex


@pytest.mark.parametrize("pattern", [r"[\w$][\w.$-]*", "[$0-9]+", "[.a-f]A", r"\$0", r"[\t0]|\.F"])
@pytest.mark.parametrize("in_json", [False, True])
def test_no_hexadecimal_digit_follows_an_escape(pattern: str, in_json: bool) -> None:
    written = render_regex(parse_pattern(pattern, full_match=True), in_json=in_json)
    assert re.search(r"\\x[0-9a-f]{2}", written)
    assert not re.search(r"\\x[0-9a-f]{2}[0-9A-Fa-f]", written)
