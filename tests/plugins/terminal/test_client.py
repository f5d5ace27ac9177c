"""The stream of a response as events, and what counts as the address of a server."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.events import Finished, Reasoning, Text, ToolArguments, ToolStart, merge_events
from fllm.values import Usage
from fllm_terminal.client import RequestFailed, StreamReader
from fllm_terminal.connection import Connection, connect, is_url
from fllm_terminal.text import safe

LINES = b"""\
data: {"choices":[{"delta":{"role":"assistant","content":""}}]}

data: {"choices":[{"delta":{"reasoning_content":"Hm"}}]}
: keep-alive
data: {"choices":[{"delta":{"content":"It is"}}]}
data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":""}}]}}]}
data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}
data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}
data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}
data: [DONE]
"""


@st.composite
def divisions(draw: st.DrawFn) -> list[bytes]:
    """Return the stream in pieces."""
    cuts = sorted(draw(st.sets(st.integers(1, len(LINES) - 1), max_size=9)))
    return [LINES[start:end] for start, end in itertools.pairwise([0, *cuts, len(LINES)])]


@given(divisions())
def test_any_division_of_a_stream_gives_the_same_events(pieces: list[bytes]) -> None:
    reader = StreamReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    assert [*merge_events(events), reader.finished()] == [
        Reasoning("Hm"),
        Text("It is"),
        ToolStart(0, "f", "c1"),
        ToolArguments(0, "{}"),
        Finished(reason="tool_calls", usage=Usage(prompt_tokens=3, completion_tokens=5)),
    ]


def test_a_stream_without_its_end_is_an_error() -> None:
    reader = StreamReader()
    assert [*reader.feed(b'data: {"choices":[{"delta":{"content":"It"}}]}\n')] == [Text("It")]
    with pytest.raises(RequestFailed, match="closed before the response was complete"):
        reader.finished()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'data: {"error":{"message":"the engine ended"}}', "the engine ended"),
        (b"data: nonsense", "malformed response"),
        (b'data: {"choices":7}', "malformed response"),
    ],
)
def test_errors_amid_the_stream(line: bytes, message: str) -> None:
    with pytest.raises(RequestFailed, match=message):
        list(StreamReader().feed(line + b"\n"))


def test_a_target_is_an_address_or_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:80").mkdir()
    addresses = ["http://h", "https://h/v1", "localhost:8000", "[::1]:8000", "unix:/run/s"]
    models = ["./model", "org/model", "model.gguf", "odd:80", "org/model:main", "embedded"]
    assert [is_url(target) for target in (*addresses, *models)] == [True] * 5 + [False] * 6


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("https://h/llm/v1", "https://h/llm/v1"),
        ("localhost:8000", "http://localhost:8000/v1"),
    ],
)
def test_a_url_may_end_with_v1(url: str, base: str) -> None:
    assert connect(url, "k") == Connection(base, api_key="k")


def test_a_model_cannot_control_the_terminal() -> None:
    assert safe("a\x1b]0;title\x07\tb\r\n\u202ec\x9b2J👩‍💻") == "a]0;title\tb\nc2J👩‍💻"
