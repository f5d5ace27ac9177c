"""The scanners of Python calls agree with Python itself, whatever the division."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.parsing.body_scanner import MAX_DEPTH, MAX_NUMBER_LENGTH
from fllm.parsing.literal_scanner import LiteralCall
from fllm.parsing.python_call_scanner import PythonCallScanner, PythonListScanner

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4).filter(bool), inner, max_size=4)
    ),
)
CALLS = st.lists(
    st.tuples(
        st.from_regex(r"[a-z_][a-z0-9_.]{0,6}", fullmatch=True),
        st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,4}", fullmatch=True), VALUES, max_size=4),
    ),
    min_size=1,
    max_size=3,
)


def read(
    text: str, *, size: int = 0, scanner: type[PythonCallScanner] = PythonListScanner
) -> PythonCallScanner:
    made = scanner()
    for start in range(0, len(text), size or len(text)):
        if made.state == "open":
            made.feed(text[start : start + (size or len(text))])
    return made


def argument(value: str) -> Any:
    """What a value becomes, written as the argument of a call."""
    made = read(f"f(a={value})", scanner=PythonCallScanner)
    if made.state != "complete":
        return made.state
    return arguments_of(made.calls[0])["a"]


def arguments_of(call: LiteralCall) -> dict[str, Any]:
    return {argument.key: json.loads(argument.value) for argument in call.arguments}


@given(CALLS, st.integers(1, 9))
def test_what_python_writes_is_read(calls: list[tuple[str, dict[str, Any]]], size: int) -> None:
    text = ", ".join(
        f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
        for name, arguments in calls
    )
    made = read(f"{text}] and more", size=size)
    assert (made.state, made.length) == ("complete", len(text) + 1)
    assert [(call.name, arguments_of(call)) for call in made.calls] == calls


@given(
    st.lists(st.sampled_from([*"f(a=[]{}'\",:)1 \\x.-\n", "f(a=", "'''", "b=", "True", "['x']"]), max_size=20)
)
def test_any_division_has_the_same_result(parts: list[str]) -> None:
    text = "".join(parts)
    whole, pieces = read(text or " "), read(text or " ", size=1)
    assert pieces.state == whole.state
    if whole.state == "complete":
        assert (pieces.length, pieces.calls) == (whole.length, whole.calls)


PYTHON = [
    r"'Martha\'s Vineyard'",
    r'"\"cool\" units"',
    r"'\x41\u00e9\U0001F600\N{BULLET}\101\0'",
    r"'a\qb'",
    "'a\\\nb'",
    r"r'C:\new\''",
    "'''it's\n'quoted' '''",
    '"""x"y"""',
    "''",
    '""""""',
    "u'ü'",
    "[1, [2, []],]",
    "{'a': {'b': [None, True, False]},}",
    "0x1F",
    "-0o17",
    "0b101",
    "1_000",
    "+5",
    ".5",
    "-2.",
    "1e-7",
    "1_0.0_1e1_0",
    "(1)",
    "((2))",
]


@pytest.mark.parametrize("value", PYTHON)
def test_literals_mean_what_they_mean_in_python(value: str) -> None:
    assert argument(value) == ast.literal_eval(value.replace(r"\q", r"\\q"))


NEARLY = {
    "true": True,
    "false": False,
    "null": None,
    "007": 7,
    "(1, 2)": [1, 2],
    "(1,)": [1],
    "()": [],
    "{1: 2, None: 3}": {"1": 2, "None": 3},
    "{a: 1}": {"a": 1},
    "'two\nlines'": "two\nlines",
    r"'\/'": "/",
    r"'\ud83d\ude00'": "😀",
    r"'\ud83d'": "\ufffd",
    r"'\N{NO SUCH NAME}\xq'": r"\N{NO SUCH NAME}\xq",
    "'nul\0'": "nul\0",
}


@pytest.mark.parametrize("value", NEARLY)
def test_what_models_mix_up_is_read(value: str) -> None:
    assert argument(value) == NEARLY[value]


BROKEN = [
    "x",
    "g()",
    "1 + 2",
    "b'x'",
    "f'x'",
    "'a' 'b'",
    "{1, 'a': 2}",
    "{'a': 1, 2}",
    "{a}",
    "[1 2]",
    "[,]",
    "[1,,2]",
    "(,)",
    "[1}",
    "-",
    "1e",
    "inf",
    "nan",
    "--1",
    "x'a'",
    "",
    "9" * (MAX_NUMBER_LENGTH + 1),
    "[" * MAX_DEPTH,
]


@pytest.mark.parametrize("value", BROKEN)
def test_anything_else_is_no_call(value: str) -> None:
    assert argument(value) == "broken"


@pytest.mark.parametrize(
    "text",
    ["]", "f()g()]", "f(),,g()]", "f('LA')]", "f(a)]", "f(a=1 b=2)]", "f]", "(a=1)]", "f (a=1)]", "f()}"],
)
def test_a_list_has_calls_with_keywords_only(text: str) -> None:
    assert read(text).state == "broken"


def test_a_name_has_an_end() -> None:
    assert read("f" * 257).state == "broken"
    assert read("f" * 256).state == "open"


def test_a_list_may_end_with_a_comma() -> None:
    assert read("f(a=1,), g(),\n]").state == "complete"


def test_the_deepest_value_can_be_read_as_json() -> None:
    depth = MAX_DEPTH - 2
    assert argument("[" * depth + "]" * depth) != "broken"


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    assert arguments_of(read("f(a=1, a=2)]").calls[0]) == {"a": 2}


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("{'red', 'blue'}", ["red", "blue"]),
        ("{1}", [1]),
        ("{True, None,}", [True, None]),
        ("[{1, 2}]", [[1, 2]]),
    ],
)
def test_a_set_is_a_list(value: str, items: list[Any]) -> None:
    assert argument(value) == items
