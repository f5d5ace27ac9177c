"""Streams and errors of servers of OpenAI's API."""

from __future__ import annotations

from typing import Any

import pytest

from fllm.server_responses import EventData, error_message


def test_only_complete_lines_of_data_are_events() -> None:
    reader = EventData()
    assert reader.feed(b": comment\nevent: x\ndata: 1\r\ndata:2\ndata: {") == [b"1", b"2"]
    assert reader.feed(b"}\n\n") == [b"{}"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "too\nlong"}}, "too long"),
        ({"error": "bad"}, "bad"),
        ({"detail": [1]}, "[1]"),
        ({"message": ""}, "{'message': ''}"),
        ("text", "text"),
        ("x" * 300, "x" * 200),
    ],
)
def test_the_message_is_found_in_any_shape(body: Any, message: str) -> None:
    assert error_message(body) == message
