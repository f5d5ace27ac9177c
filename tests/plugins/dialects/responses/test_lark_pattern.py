"""Lark grammars as regular expressions: what they match, and which are refused or not expressed."""

from __future__ import annotations

import re

import pytest

from fllm_dialects.responses.lark_pattern import LarkError, lark_pattern

PATCH = r"""
start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | update_hunk
add_hunk: "*** Add File: " filename LF add_line+
update_hunk: "*** Update File: " filename LF change?

filename: /(.+)/
add_line: "+" /(.*)/ LF -> line
change: (change_context | change_line)+
change_context: ("@@" | "@@ " /(.+)/) LF
change_line: ("+" | "-" | " ") /(.*)/ LF

%import common.LF
"""
SUMS = """
start: sum
sum: product (SP ADD SP product)* -> sum
   | product
product: INT (SP "*" SP INT)*  // no parentheses
SP: " "
ADD.2: "+"
%import common (INT, WS)
"""
QUERY = r"""
    // ---------- Operators ----------
    SP: " "
    COMMA: ","

    // ---------- Start ----------
    start: "SELECT" SP "TOP" SP INT SP column (COMMA SP column)* SP "WHERE" SP column SP ">" SP DATE ";"
    column: IDENTIFIER

    %import common.INT  // how many
    // ---------- Terminals ----------
    IDENTIFIER: /[A-Za-z_][A-Za-z0-9_]*/
    DATE: /'[0-9]{4}-[0-9]{2}-[0-9]{2}'/
"""
SPACED = r"""
?start: "{" [pair ("," pair)*] "}"
!pair: CNAME ":" (SIGNED_NUMBER | ESCAPED_STRING)
%import common.CNAME
%import common.SIGNED_NUMBER
%import common.ESCAPED_STRING
%ignore /[ \t]/
"""


@pytest.mark.parametrize(
    ("grammar", "matched", "others"),
    [
        (
            PATCH,
            [
                "*** Begin Patch\n*** Add File: a b\n+x\n+\n*** End Patch",
                "*** Begin Patch\n*** Update File: a\n@@ f\n x\n-y\n*** End Patch\n",
            ],
            ["*** Begin Patch\n*** End Patch\n", "*** Begin Patch\n*** Add File: a\nx\n*** End Patch"],
        ),
        (SUMS, ["4 + 4 * 12", "7"], ["4+4", "4 +", "(4)"]),
        (
            QUERY,
            ["SELECT TOP 10 a, b WHERE a > '2025-01-31';"],
            ["SELECT TOP ten a WHERE a > '2025-01-31';", "SELECT TOP 1 a WHERE a > 2;"],
        ),
        (SPACED, ['{ a : -1.5e3, b:"x \\" y" } ', "{}"], ["{a}", "{a : 1 1}"]),
        ('start: "x"~2..3 | "y"~2 "z"{2,} | "w"{1,2}', ["xx", "xxx", "yyzzz", "w"], ["x", "yz", "www"]),
        ('start: "Aé"i "1".."3"', ["aÉ2", "Aé1"], ["aé4"]),
        (r'start: "\n\t\"\\\x41\u00e9" /\/[\/.]a/', ['\n\t"\\Aé/.a'], ["n"]),
        (r"start: /a.\./ /./s", ["a\r.\n"], ["a\n.x", "ax1y"]),
        ('start: | "a"\n # nothing, or a\n', ["", "a"], ["b"]),
        ('start: "a|b" | "c."', ["a|b", "c."], ["a", "cx"]),
        ('start: a a?\r\na: "x" | "y"\r\n', ["xy", "y"], ["", "xyx"]),
    ],
)
def test_the_pattern_matches_what_the_grammar_generates(
    grammar: str, matched: list[str], others: list[str]
) -> None:
    pattern = lark_pattern(grammar)
    assert pattern is not None
    assert [text for text in matched if not re.fullmatch(pattern, text)] == []
    assert [text for text in others if re.fullmatch(pattern, text)] == []


@pytest.mark.parametrize(
    "grammar",
    [
        'start: "(" start ")" | "x"',
        'start: a\na: "x" b?\nb: a',
        'start: pair{"x"}\npair{x}: x x',
        "start: <|im_end|>",
        'start: %json {"type": "number"}',
        'start: "a" & "b"',
        "start: /(?=a)a/",
        "start: /a/i",
        "start: A\n%import python.A",
        "start: /a{2000}/",
        # Each rule doubles the one before.
        "start: a0\n" + "\n".join(f"a{i}: a{i + 1} a{i + 1}" for i in range(30)) + '\na30: "x"',
        "start: " + "|".join(f'"{"x" * 1000}{i}"' for i in range(20)),
        'start: "a"' + "*" * 20_000,
        "start: " + "(" * 10_000 + '"a"' + ")" * 10_000,
        "start: " + "/[" * 10_000,
        'start: "a" ' + " " * 40_000,
        "start: INT\n%import common.INT " + "// # " * 5_000 + "\n|",
    ],
)
def test_what_is_no_regular_expression_of_reasonable_size_has_no_pattern(grammar: str) -> None:
    assert lark_pattern(grammar) is None


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ('begin: "a"', "no rule `start`"),
        ("start: word", "no rule 'word'"),
        ("start: WORD", "no rule 'WORD'"),
        ('start: ("a"', r"'\)' is missing"),
        ('start: "a")', r"'\)' is not expected"),
        ("start: /(/", "is not a regular expression"),
        ('start: "b".."a"', "ends of a range"),
        ("", "no rule `start`"),
    ],
)
def test_an_invalid_grammar_is_refused(grammar: str, message: str) -> None:
    with pytest.raises(LarkError, match=message):
        lark_pattern(grammar)
