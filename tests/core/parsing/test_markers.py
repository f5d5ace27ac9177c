"""The stage that finds markers in a text."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.parsing.markers import Marker, MarkerSplitter


def split(
    pieces: Iterable[str], markers: tuple[str, ...] = ("<call>", "</call>", "[[")
) -> list[str | Marker]:
    splitter = MarkerSplitter(markers)
    parts = [part for piece in pieces for part in splitter.feed(piece)] + splitter.finish()
    joined: list[str | Marker] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def test_markers_are_found_and_the_rest_is_text() -> None:
    assert split(["a<call>b</call>[[[c<cal"]) == [
        "a", Marker("<call>"), "b", Marker("</call>"), Marker("[["), "[c<cal",
    ]  # fmt: skip


def test_text_passes_but_for_what_may_become_a_marker() -> None:
    splitter = MarkerSplitter(["<call>"])
    assert splitter.feed("a < b <ca") == ["a < b "]
    assert splitter.feed("t") == ["<cat"]
    assert splitter.feed("<call") == []
    assert splitter.feed(">x") == [Marker("<call>"), "x"]
    assert splitter.finish() == []


@given(
    st.lists(st.sampled_from(["<call>", "</call>", "[[", "<", "c", "all>", "[", "/", "x"])).map("".join),
    st.data(),
)
def test_any_division_gives_the_same_parts(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text))).map(sorted))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    parts = split(pieces)
    assert parts == split([text])
    assert "".join(part if isinstance(part, str) else part.text for part in parts) == text


def test_without_markers_all_is_text() -> None:
    assert split(["a", "b"], ()) == ["ab"]


def test_a_marker_within_another_is_refused() -> None:
    with pytest.raises(ValueError, match="'<c' is part of another marker"):
        MarkerSplitter(["<call>", "<c"])
