"""The number of characters of a prompt that is being received."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_api.limits.prompt_scanner import MAX_HEAD, PromptScanner


def characters(*pieces: bytes) -> int:
    scanner = PromptScanner()
    for piece in pieces:
        scanner.feed(piece)
    return scanner.characters


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b'{"prompt":"abcd', 4),
        (b' { "model" : "m\\"" , "n":1,"stream":true, "prompt" : [ "abcd"', 4),
        (b'{"prompt":"abcd","user":"efgh', 4),
        (b'{"prompt":["abcd","efgh"', 4),
        (b'{"prompt":"', 0),
        ('{"prompt":"漢漢漢漢'.encode(), 3),
        (b'{"prompt":"abcd\\n', 0),
        (b'{"prompt":"' + b"a" * 20 + b"\\u00e9", 20),
        (b'{"user":"abcd', 0),
        (b'{"user":{"prompt":"abcd', 0),
        (b'{"model":"prompt","x":"abcd', 0),
        (b'{"prompt":[1,2,3', 0),
        (b'{"prompt":1,"prompt":"abcd', 0),
        (b"[]", 0),
        (b"{" + b" " * MAX_HEAD, 0),
    ],
)
def test_only_the_text_of_the_prompt_counts(body: bytes, count: int) -> None:
    assert characters(body) == count


@given(st.text(), st.booleans(), st.lists(st.integers(0, 200), max_size=4))
def test_the_count_never_exceeds_the_prompt(prompt: str, escaped: bool, cuts: list[int]) -> None:
    text = json.dumps({"model": "m", "prompt": prompt, "user": "a long text behind it"}, ensure_ascii=escaped)
    body = text.encode(errors="replace")
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    assert characters(*(body[i:j] for i, j in itertools.pairwise(edges))) <= len(prompt)


def test_a_prompt_is_counted_across_pieces() -> None:
    assert characters(b'{"prompt":"', b"abc", b"def", b'ghi"', b"jkl") == 9
    assert characters(b'{"prompt":"\\u', b"00e9") == 0
    assert characters(b'{"pro', b'mpt":"' + b"a" * 10, b"\\", b'"' + b"a" * 10) == 16
