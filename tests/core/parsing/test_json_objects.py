"""Objects within a text, and how much work it is to find them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm.parsing import json_objects
from fllm.parsing.json_objects import JsonObject, ObjectFinder, read_object
from fllm.parsing.json_scanner import JsonScanner

PARTS = [
    "{",
    "}",
    "[",
    "]",
    '"',
    ":",
    ",",
    "\\",
    " ",
    "\n",
    "a",
    "1",
    '{"a":1}',
    '{"{":"}"}',
    '{"',
    '":',
    "é😀",
]


Part = str | tuple[str, dict[str, str]]
"""Text, or the text and the members of an object."""


def plain(parts: list[str | JsonObject]) -> list[Part]:
    return [part if isinstance(part, str) else (part.text, part.members) for part in parts]


def found(*pieces: str) -> list[str | JsonObject]:
    """What the finder gives, with neighbouring text joined."""
    finder = ObjectFinder()
    parts = [part for piece in pieces for part in finder.feed(piece)] + finder.finish()
    joined: list[str | JsonObject] = []
    for part in parts:
        assert part
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def texts(parts: list[str | JsonObject]) -> list[str]:
    return [part if isinstance(part, str) else part.text for part in parts]


def objects(*pieces: str) -> list[str]:
    return [part.text for part in found(*pieces) if isinstance(part, JsonObject)]


class CountingScanner(JsonScanner):
    """Counts the characters that all scanners together read."""

    read = 0

    def feed(self, text: str, start: int = 0) -> None:
        before = self.length
        super().feed(text, start)
        CountingScanner.read += self.length - before


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(PARTS), max_size=30), st.data())
def test_any_division_finds_the_same(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = data.draw(st.lists(st.integers(0, len(text))).map(sorted))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = found(text)
    assert plain(found(*pieces)) == plain(whole)
    assert "".join(texts(whole)) == text
    for part in whole:
        if isinstance(part, JsonObject):
            members = {key: json.loads(value) for key, value in part.members.items()}
            assert members == json.loads(part.scanner.json_text(0, len(part.text)))


def test_members_are_kept_as_they_were_written() -> None:
    text = '{ "a" : {"b":  [1.0, "\\u00e9é"]} , "\\u0063":null, "a": 2 }'
    found = read_object(text)
    assert found
    assert (found.text, found.members) == (text, {"a": "2", "c": "null"})


@pytest.mark.parametrize("text", ["", "{", '{"a":1} ', 'x{"a":1}', "[]", "1", '{"a":1}{}'])
def test_only_a_whole_object_is_one(text: str) -> None:
    assert read_object(text) is None


def test_the_outermost_object_is_found() -> None:
    assert objects('a {"b": {"c": {}}} {"d": 1}{"e": 2}') == ['{"b": {"c": {}}}', '{"d": 1}', '{"e": 2}']


def test_an_object_behind_an_unbalanced_brace_is_found() -> None:
    assert objects('a { b {"c": 1}') == ['{"c": 1}']
    assert objects('a {"b {"c": 1}') == ['{"c": 1}']
    assert objects('a {"b": {"c": 1}, d {"e": 1}') == ['{"e": 1}']
    assert objects('{"a": "b}, {"c": 1}, {"d": "e"}') == ['{"c": 1}', '{"d": "e"}']


def test_an_object_within_a_broken_one_is_not_found() -> None:
    assert objects('{"a": {"b": 1}, oops') == []
    assert objects('{"a": {"b": 1}') == []


def test_text_passes_at_once_and_an_object_when_it_is_complete() -> None:
    finder = ObjectFinder()
    assert finder.feed('a {b {"c') == ["a {b "]
    assert finder.feed('": 1') == []
    assert plain(finder.feed("} d")) == [('{"c": 1}', {"c": "1"}), " d"]
    assert finder.feed("{") == []
    assert finder.feed("{") == ["{"]
    assert finder.finish() == ["{"]


def test_an_object_that_is_certain_may_break_off_or_be_cut_off() -> None:
    finder = ObjectFinder(lambda scanner: bool(scanner.bounds))
    assert plain(finder.feed('a {"b": 1, c} {"d": "e') + finder.finish()) == [
        "a ",
        ('{"b": 1', {"b": "1"}),
        ", c} ",
        ('{"d": "e', {}),
    ]


SIZE = 20_000
ADVERSARIAL = {
    "braces": "{" * SIZE,
    "brackets": "[" * SIZE,
    "nested objects": '{"a":' * (SIZE // 5),
    "nested lists": ('{"a":' + "[" * 200) * (SIZE // 205),
    "an open string": '{"' + "a{" * (SIZE // 2),
    "objects in an open object": '{"a":[' + '{"b":1},' * (SIZE // 8),
    "strings that are structure to one another": '{"{":":","," :' * (SIZE // 14),
    "braces at the ends of strings": '{"{"' * (SIZE // 4),
    "broken far from its beginning": ('{"a":[' + '"{",' * 500 + "x") * (SIZE // 2000),
    "white space": "{ " * (SIZE // 2),
    "a long number": '{"a":' + "1" * SIZE,
}


@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("text", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_the_work_is_linear(text: str, size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_objects, "JsonScanner", CountingScanner)
    CountingScanner.read = 0
    pieces = [text[start : start + (size or len(text))] for start in range(0, len(text), size or len(text))]
    assert "".join(texts(found(*pieces))) == text
    # Twice at most as part of an object, and sometimes as the character that shows there is none.
    assert CountingScanner.read <= 3 * len(text)
