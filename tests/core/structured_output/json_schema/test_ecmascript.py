from __future__ import annotations

import re

import pytest

from fllm.structured_output.json_schema.ecmascript import without_dialect

PATTERNS = [
    (r"^[^<>()[\]\\.,;:\s@\"]+$", r"^[^<>()\[\]\\.,;:\s@\"]+$", ["ab"], ["a[b", "a@"]),
    ("[[]", r"[\[]", ["["], ["a"]),
    ("^[a&&b]$", r"^[a\&\&b]$", ["a", "&"], ["c"]),
    ("^[~~]$", r"^[\~\~]$", ["~"], ["a"]),
    ("^[+--]$", r"^[+-\-]$", ["+", ",", "-"], ["a"]),
    ("^[^]$", r"^[\s\S]$", ["a", "\n"], ["ab"]),
    ("^{x}$", r"^\{x}$", ["{x}"], ["x"]),
    ("^a{2,3}[{]{2}$", "^a{2,3}[{]{2}$", ["aa{{"], ["a{{"]),
    (r"^\<\é\0\cA\>$", r"^<é\x00\x01>$", ["<é\0\x01>"], ["é"]),
    (r"\A\d+\Z", r"^\d+$", ["12"], ["a12", "12a"]),
    (r"\Aa\z", "^a$", ["a"], ["ab"]),
    (r"^[\b]$", r"^[\x08]$", ["\b"], ["b"]),
    (r"^\ud83d\ude00$", "^\N{GRINNING FACE}$", ["\N{GRINNING FACE}"], ["a"]),
    (r"^\u00e9\x41\d{2}\.\/$", r"^\u00e9\x41\d{2}\.\/$", ["éA12./"], ["e"]),
    (r"\p{L}\u{1F600}", r"\p{L}\u{1F600}", [], []),
    ("^[a-z\\-\\]]$", "^[a-z\\-\\]]$", ["-", "]", "q"], ["["]),
]


@pytest.mark.parametrize(("pattern", "expected", "valid", "invalid"), PATTERNS)
def test_a_pattern_means_the_same_in_other_languages(
    pattern: str, expected: str, valid: list[str], invalid: list[str]
) -> None:
    rewritten = without_dialect(pattern)
    assert rewritten == expected
    assert [text for text in valid if not re.search(rewritten, text)] == []
    assert [text for text in invalid if re.search(rewritten, text)] == []
    assert without_dialect(rewritten) == rewritten
