"""The input of a custom tool comes out of JSON arguments while they arrive."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_dialects.responses.custom_input import CustomInput


def streamed(arguments: str, cuts: list[int]) -> list[str]:
    """Return what is emitted for the arguments in pieces that end at the cuts."""
    reader, pieces, start = CustomInput(), [], 0
    for end in [*sorted(min(cut, len(arguments)) for cut in cuts), len(arguments)]:
        pieces.append(reader.feed(arguments[start:end]))
        start = end
    pieces.append(reader.finish())
    assert "".join(pieces) == reader.text
    return pieces


@given(st.text(), st.booleans(), st.lists(st.integers(0, 60), max_size=8))
def test_any_text_arrives_whatever_the_pieces_are(text: str, escape: bool, cuts: list[int]) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=escape)
    assert "".join(streamed(arguments, cuts)) == text


def test_the_input_is_emitted_before_it_is_complete() -> None:
    assert streamed('{"input": "*** Begin\\n+x"}', [12, 20]) == ["*", "** Begin", "\n+x", ""]


def test_escapes_are_not_split() -> None:
    arguments = '{"input": "\\ud83d\\ude00\\u00e9\\n"}'
    assert [piece for piece in streamed(arguments, list(range(40))) if piece] == ["😀", "é", "\n"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"other": 1, "input": "x"}', "x"),
        ('{"patch": "x"}', '{"patch": "x"}'),
        ('{"input": 1}', '{"input": 1}'),
        ("no JSON", "no JSON"),
        ("", ""),
        ('{"input": "cut of', "cut of"),
        ('{"input": "bad \\x escape"}', "bad \\x escape"),
        ('{"input": "half \\ud83d a pair"}', "half \\ud83d a pair"),
        ('{"input": "a\nb"}', "a\nb"),
        ('{"input": "a\n\\tb"}', "a\n\tb"),
        (' { "input" : "x" } ', "x"),
        ("[" * 100_000, "[" * 100_000),
    ],
    ids=range(12),
)
def test_nothing_that_the_model_wrote_is_lost(arguments: str, expected: str) -> None:
    assert "".join(streamed(arguments, [3, 14, 15])) == expected
