"""The scanner of tagged arguments: where a value ends, and what is not a call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.parsed_calls import parse_calls

from fllm import Tool
from fllm.parsing.body_scanner import MAX_NAME_LENGTH
from fllm.parsing.tag_scanner import TagFormat, TaggedBodyScanner, taggable
from fllm.parsing.tagged_tool_calls import TaggedToolCallParser

TAGS = TagFormat(
    opening="<f=",
    after_name=">",
    before_key="<p=",
    after_key=(">",),
    after_value="</p>",
    end="</f>",
    cut=("</f>\n</call>",),
    padding="\n",
)
PAIRED = TagFormat(
    opening="<call>",
    before_key="<k>",
    after_key=("</k>", "<v>"),
    after_value="</v>",
    end="</call>",
    typed=True,
)

TOOL = Tool("go", parameters={"properties": {"a": {"type": "string"}, "b": {"type": "integer"}}})


def read(body: str, tags_: TagFormat = TAGS) -> Any:
    """Return name and arguments, if the whole of ``body`` is a call."""
    scanner = TaggedBodyScanner(tags_)
    scanner.feed(body)
    if scanner.state != "complete" or scanner.length != len(body):
        return None

    class TagParser(TaggedToolCallParser):
        opening = (tags_.opening,)
        tags = tags_

    text, calls = parse_calls(TagParser, tags_.opening + body, tools=[TOOL])
    assert not text
    [(name, arguments)] = calls
    return name, json.loads(arguments)


ROWS: dict[str, tuple[str, Any]] = {
    "nothing": ("go></f>", {}),
    "white space between tags": ("go>\n  <p=a>x</p>\n\n\t<p=b>1</p> \n</f>", {"a": "x", "b": 1}),
    "one line break next to each tag": ("go><p=a>\n\n x \n\n</p></f>", {"a": "\n x \n"}),
    "an empty value": ("go><p=a></p></f>", {"a": ""}),
    "a value that is a line break": ("go><p=a>\n</p></f>", {"a": ""}),
    "a value of other tags": ("go><p=a><b></b></f></p></f>", {"a": "<b></b></f>"}),
    "a value of its own closing tag": ("go><p=a>x</p> y</p></p>\n</f>", {"a": "x</p> y</p>"}),
    "a closing tag in pieces": ("go><p=a></p</p></f>", {"a": "</p"}),
    "a value without its closing tag": ("go><p=a>\nx\n<p=b>\n1\n</p></f>", {"a": "x", "b": 1}),
    "the last value without its closing tag": ("go><p=b>\n1\n</f>\n</call>", {"b": 1}),
    "a tag within a value": ("go><p=a>x <p=b>1</p></f>", {"a": "x <p=b>1"}),
    "a parameter that nobody knows within a value": ("go><p=a>\nx\n<p=z>\n</p></f>", {"a": "x\n<p=z>"}),
    "a parameter that is given anyway": ("go><p=b>1</p><p=a>x\n<p=b>2</p></f>", {"a": "x\n<p=b>2", "b": 1}),
    "a parameter twice": ("go><p=b>1</p><p=b>2</p></f>", {"b": 2}),
    "a parameter that nobody knows": ("go><p=z>1</p></f>", {"z": "1"}),
    "the opening of a call within a value": ("go><p=a>x<f=</p></f>", {"a": "x<f="}),
    "the opening of a call on a line of a value": ("go><p=a>x\n<f=y>\n</p></f>", {"a": "x\n<f=y>"}),
    "something wrong between tags": ("go><p=a>x</p> and </p><p=b>1</p></f>", {"a": "x</p> and ", "b": 1}),
    "something wrong after a value": ("go><p=a>x</p><p=b>1</p><p=</f>", {"a": "x", "b": 1}),
    "white space around names": (" go ><p= a >x</p></f>", {"a": "x"}),
}


@pytest.mark.parametrize(("body", "arguments"), ROWS.values(), ids=ROWS)
def test_what_is_a_call(body: str, arguments: Any) -> None:
    assert read(body) == ("go", arguments)


@pytest.mark.parametrize(
    "body",
    [
        "go",
        "go>",
        "></f>",
        " ></f>",
        "g<o></f>",
        "g\no></f>",
        "g\x00o></f>",
        "go>x</f>",
        "go><p=a>x</f>",
        "go><p=></p></f>",
        "go><p=a>x</p>",
        "go></f> ",
        "g" * (MAX_NAME_LENGTH + 1) + "></f>",
    ],
)
def test_what_is_no_call(body: str) -> None:
    assert read(body) is None


def test_what_is_no_string_is_json_where_the_format_says_so() -> None:
    values = {"n": "5", "s": "Tokyo", "l": '["x"]', "q": '"5"', "b": "5"}
    body = "go" + "".join(f"\n<k>{key}</k>\n<v>{value}</v>" for key, value in values.items()) + "\n</call>"
    assert read(body, PAIRED) == ("go", {"n": 5, "s": "Tokyo", "l": ["x"], "q": '"5"', "b": 5})


def test_white_space_in_values_is_kept_where_the_format_has_no_padding() -> None:
    assert read("go<k>a</k><v>\n x </v></call>", PAIRED) == ("go", {"a": "\n x "})


PARTS = ["go", ">", "<p=", "a", "</p>", "</f>", "<f=", "\n", "</call>", " ", "</", "x", "<p=b>1</p>"]


@given(st.lists(st.sampled_from(PARTS), max_size=16).map("".join), st.integers(1, 5))
def test_any_division_has_the_same_result(text: str, size: int) -> None:
    whole, pieces = TaggedBodyScanner(TAGS), TaggedBodyScanner(TAGS)
    whole.feed(text)
    for start in range(0, len(text), size):
        if pieces.state == "open":
            pieces.feed(text[start : start + size])
    assert pieces.state == whole.state
    if whole.state == "complete":
        assert (pieces.length, pieces.name, pieces.arguments) == (whole.length, whole.name, whole.arguments)


@pytest.mark.parametrize("key", ["", " a", "a>", "a<b", "a\nb", 'a"', "a\x00", "a" * (MAX_NAME_LENGTH + 1)])
def test_what_no_tag_can_hold_is_known(key: str) -> None:
    assert not taggable(key)
    assert taggable("a key-1")
