"""The scanner agrees with Python's own parser, whatever the division."""

import json
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fllm.parsing.body_scanner import MAX_DEPTH, MAX_NUMBER_LENGTH
from fllm.parsing.json_scanner import JsonScanner

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)

BROKEN = [
    "[]",
    "{]",
    "{a}",
    "{,}",
    "{{",
    '{"a"}',
    '{"a" "b"}',
    '{"a":}',
    '{"a":,}',
    '{"a":1 "b":2}',
    '{"a":1;',
    '{"a":[,1]}',
    '{"a":1,,}',
    '{"a":[,]}',
    '{"a":Truex}',
    '{"a":TRUE}',
    "{True:1}",
    '{"a":[1}',
    '{"a":{]}',
    '{"a":[1 2]}',
    '{"a":tru}',
    '{"a":NaN}',
    '{"a":nullx}',
    '{"a":01}',
    '{"a":-}',
    '{"a":1.}',
    '{"a":.5}',
    '{"a":+1}',
    '{"a":1e}',
    '{"a":1e5.5}',
    '{"a":0x1}',
    '{"\n":1}',
    '{"\\x":1}',
    '{"\\u12g4":1}',
    "{'a':1}",
    '{"a":1\u00a0}',
    '{"a":"\ud800"}',
]


def scanned(text: str, size: int | None = None) -> JsonScanner:
    scanner = JsonScanner()
    size = size or len(text) or 1
    for start in range(0, len(text), size):
        scanner.feed(text[start : start + size])
    return scanner


@given(OBJECTS, st.booleans(), st.sampled_from([None, 2]), st.integers(1, 7))
def test_an_object_is_read_to_its_end_and_no_further(
    value: dict[str, object], ascii: bool, indent: int | None, size: int
) -> None:
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    for scanner in (scanned(text + "} tail"), scanned(text + "} tail", size)):
        assert scanner.state == "complete"
        assert scanner.length == len(text)
        assert {key: json.loads(member) for key, member in scanner.members.items()} == value


@given(OBJECTS, st.data())
def test_an_object_cut_off_is_open(value: dict[str, object], data: st.DataObject) -> None:
    text = json.dumps(value)
    assert scanned(text[: data.draw(st.integers(0, len(text) - 1))]).state == "open"


@given(OBJECTS, st.text('{}[]:,"\\u0 1eE.+-tn\n', min_size=1, max_size=1), st.data())
def test_a_changed_character_is_judged_as_python_judges_it(
    value: dict[str, object], char: str, data: st.DataObject
) -> None:
    text = json.dumps(value)
    place = data.draw(st.integers(0, len(text) - 1))
    text = text[:place] + char + text[place + 1 :]
    try:
        end = json.JSONDecoder().raw_decode(text)[1] if text.startswith("{") else None
    except json.JSONDecodeError as error:
        assume(not error.msg.startswith("Invalid"))  # what strings may hold is tested below
        end = None
    one, other = scanned(text), scanned(text, 1)
    assert one.state == other.state
    if end is None and re.search(r",\s*[}\]]", text):
        return  # a comma before a closing bracket is dropped
    assert (one.state == "complete") == (end is not None)
    if end is not None:
        assert (one.length, other.length) == (end, end)


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("size", [None, 1])
def test_what_json_does_not_allow_breaks_it(text: str, size: int | None) -> None:
    assert scanned(text, size).state == "broken"


def test_it_breaks_at_the_first_wrong_character() -> None:
    scanner = scanned('{"a": {"b": x and so on')
    assert (scanner.state, scanner.length) == ("broken", 12)


def test_it_says_where_objects_begin_but_not_braces_of_strings() -> None:
    assert scanned('{"{": [{"a": {}}, "{"]}', 1).object_starts == [0, 7, 13]


def test_feeding_may_begin_within_a_text() -> None:
    scanner = JsonScanner()
    scanner.feed('say {"a', 4)
    scanner.feed('bc": [1]} x')
    assert (scanner.state, scanner.length) == ("complete", 12)
    assert scanner.spans == [(slice(1, 6), slice(8, 11))]
    assert (scanner.text, scanner.members) == ('{"abc": [1]}', {"abc": "[1]"})


def test_complete_members_are_known_while_the_object_is_open() -> None:
    assert scanned('{"name": "f", "arguments": {"a"', 1).members == {"name": '"f"'}


def test_nesting_has_a_limit_and_needs_no_recursion() -> None:
    levels = MAX_DEPTH - 1
    assert scanned('{"a":' + "[" * levels + "]" * levels + "}").state == "complete"
    assert scanned('{"a":' * 10_000).state == "broken"
    assert scanned('{"a":' + "[" * (levels + 1)).state == "broken"


@pytest.mark.parametrize("size", [None, 1])
def test_the_length_of_a_number_has_a_limit(size: int | None) -> None:
    assert scanned('{"a":' + "1" * MAX_NUMBER_LENGTH + "}", size).state == "complete"
    assert scanned('{"a":' + "1" * (MAX_NUMBER_LENGTH + 1) + "}", size).state == "broken"


def test_control_characters_within_strings_are_escaped() -> None:
    text = '{"a": "x\ny\t", "b":\n["\x00"]}'
    scanner = scanned(text, 1)
    assert scanner.state == "complete"
    assert scanner.text == text
    assert scanner.members == {"a": '"x\\ny\\t"', "b": '["\\u0000"]'}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\d+ \w", r"\d+ \w"),
        (r"C:\Users\x", r"C:\Users\x"),
        (r"\u12", r"\u12"),
        (r"\u12g4", r"\u12g4"),
        ("\\\n", "\\\n"),
        (r"it\'s", "it's"),
        (r"\\\'", r"\'"),
        (r"\\d", r"\d"),
    ],
)
@pytest.mark.parametrize("size", [None, 1, 2, 3])
def test_a_backslash_without_a_meaning_is_a_character(written: str, meant: str, size: int | None) -> None:
    scanner = scanned(f'{{"a": "{written}"}}', size)
    assert scanner.state == "complete"
    assert json.loads(scanner.members["a"]) == meant


def as_models_write(value: object, comma: str) -> str:
    """Return JSON with the words of Python, and ``comma`` before closing brackets."""
    match value:
        case dict() if value:
            members = (f"{json.dumps(key)}: {as_models_write(each, comma)}" for key, each in value.items())
            return f"{{{', '.join(members)}{comma}}}"
        case list() if value:
            return f"[{', '.join(as_models_write(each, comma) for each in value)}{comma}]"
        case None | bool():
            return str(value)
        case _:
            return json.dumps(value)


@given(OBJECTS, st.sampled_from(["", ",", " ,\n"]), st.integers(1, 5))
def test_words_of_python_and_commas_before_brackets(value: dict[str, object], comma: str, size: int) -> None:
    text = as_models_write(value, comma)
    scanner = scanned(text, size)
    assert (scanner.state, scanner.length) == ("complete", len(text))
    assert json.loads(scanner.json_text(0, scanner.length)) == value
    assert {key: json.loads(member) for key, member in scanner.members.items()} == value


def test_words_of_python_and_last_commas_are_replaced() -> None:
    scanner = scanned('{"a": [True, None,\n], "b": {"c": False,}, }', 1)
    assert scanner.json_text(0, scanner.length) == '{"a": [true, null\n], "b": {"c": false} }'
    assert scanner.members == {"a": "[true, null\n]", "b": '{"c": false}'}


@given(OBJECTS, st.booleans(), st.data())
def test_an_object_can_be_closed_anywhere(value: dict[str, object], ascii: bool, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=ascii)
    scanner = scanned(text[: data.draw(st.integers(1, len(text)))])
    closed = scanner.json_text(0, scanner.closable) + scanner.closing()
    assert isinstance(json.loads(closed), dict)
    assert scanner.closable <= scanner.length
