"""Histories with tool calls that other servers wrote, or that were cut off."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from fllm_api.intake.history import object_text, template_messages
from fllm_api.protocol.chat import ChatMessage


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        (' {"a": {"b": "c"}} ', {"a": {"b": "c"}}),
        ("", {}),
        ("null", {}),
        ("{", {}),
        ('{"title": "Mi', {"title": "Mi"}),
        ('{"a": [1, {"b": "x', {"a": [1, {"b": "x"}]}),
        ('{"a": "b", "c', {"a": "b"}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        ("{'a': True}", {"a": True}),
        ("{'a': b", {"arguments": "{'a': b"}),
        ('"Tokyo"', {"arguments": "Tokyo"}),
        ("[1, 2]", {"arguments": [1, 2]}),
        ('{"a": NaN}', {"arguments": '{"a": NaN}'}),
        ("Tokyo", {"arguments": "Tokyo"}),
        ('{"a": 1} and more', {"arguments": '{"a": 1} and more'}),
    ],
)
def test_arguments_become_an_object_and_nothing_is_lost(arguments: str, expected: Any) -> None:
    assert json.loads(object_text(arguments)) == expected


def test_only_the_arguments_of_tool_calls_change() -> None:
    written: list[dict[str, Any]] = [
        {"role": "user", "content": '{"a'},
        {
            "role": "assistant",
            "content": "Hm.",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "b'}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": '{"c'},
    ]
    messages = template_messages(msgspec.convert(written, list[ChatMessage]))
    assert messages[0]["content"] == '{"a'
    assert messages[1]["content"] == "Hm."
    assert messages[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": "b"}'}
    assert messages[2]["content"] == '{"c'
