from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.parsing.partial_match import longest_overlap
from fllm.pipeline.stop_strings import StopStrings


def stopped(stop: Iterable[str], pieces: Iterable[str], *, include: bool = False) -> tuple[str, str | None]:
    stage = StopStrings(stop, include=include)
    text = "".join([stage.feed(piece) for piece in pieces]) + stage.finish()
    return text, stage.matched


@pytest.mark.parametrize(
    ("stop", "text", "expected"),
    [
        ([], "abc", ("abc", None)),
        (["x"], "abc", ("abc", None)),
        (["bc"], "abcd", ("a", "bc")),
        (["bc", "c"], "abcd", ("a", "bc")),
        (["abcd", "bc"], "abcd", ("a", "bc")),
        (["bcx"], "abc", ("abc", None)),
        (["aab"], "aaab", ("a", "aab")),
        (["😀"], "a😀b", ("a", "😀")),
    ],
)
def test_the_text_ends_before_a_stop_string(
    stop: list[str], text: str, expected: tuple[str, str | None]
) -> None:
    assert stopped(stop, [text]) == expected
    assert stopped(stop, text) == expected


def test_the_stop_string_may_be_included() -> None:
    assert stopped(["bc"], "abcd", include=True) == ("abc", "bc")


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    stage = StopStrings(["stop"])
    assert stage.feed("a st") == "a "
    assert stage.feed("a") == "sta"
    assert stage.feed("s") == ""
    assert stage.finish() == "s"


def test_nothing_is_emitted_after_a_stop_string() -> None:
    stage = StopStrings(["b"])
    assert stage.feed("abc") == "a"
    assert stage.feed("more") == ""
    assert stage.finish() == ""


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.lists(st.text("ab", max_size=4)),
    st.booleans(),
)
def test_the_division_of_the_text_does_not_matter(stop: list[str], pieces: list[str], include: bool) -> None:
    assert stopped(stop, pieces, include=include) == stopped(stop, ["".join(pieces)], include=include)


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=5),
    st.lists(st.text("ab", max_size=4)),
    st.booleans(),
)
def test_the_first_stop_string_is_the_one_that_completes_first(
    stop: list[str], pieces: list[str], include: bool
) -> None:
    text = "".join(pieces)
    if hit := find_first(text, stop):
        start, found = hit
        expected = text[: start + len(found) * include], found
    else:
        expected = text, None
    assert stopped(stop, pieces, include=include) == expected


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=5), st.text("ab"))
def test_exactly_the_text_that_may_become_a_stop_string_is_held_back(stop: list[str], text: str) -> None:
    stage = StopStrings(stop)
    given = stage.feed(text)
    if stage.matched is None:
        assert len(text) - len(given) == longest_overlap(text, stop)


def find_first(text: str, markers: Iterable[str]) -> tuple[int, str] | None:
    """Return where the marker that completes first begins, and that marker."""
    found = [(start + len(marker), start, marker) for marker in markers if (start := text.find(marker)) >= 0]
    if not found:
        return None
    _, start, marker = min(found)
    return start, marker
