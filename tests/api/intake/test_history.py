"""Histories with tool calls that other servers wrote, or that were cut off."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from fllm.requests.chat import ChatMessage
from fllm_api.intake.history import object_text, template_messages

Message = dict[str, Any]


def as_read(*messages: Message) -> list[Message]:
    return template_messages(msgspec.convert(messages, list[ChatMessage]))


def call(name: str, call_id: str | None = None, arguments: Any = "{}") -> Message:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def ids(messages: list[Message]) -> list[list[str]]:
    """Return the ids of the calls, and of the result, of each message that has some."""
    each = [
        [call["id"] for call in message.get("tool_calls") or ()] or [message.get("tool_call_id")]
        for message in messages
    ]
    return [found for found in each if found != [None]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"a": 1}, {"a": 1}),
        (None, {}),
        ([1, 2], {"arguments": [1, 2]}),
        (5, {"arguments": 5}),
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
        (r'{"a": "\ud83d"}', {"arguments": r'{"a": "\ud83d"}'}),
        ('{"a": 1e400}', {"arguments": '{"a": 1e400}'}),
        ("[1e400]", {"arguments": "[1e400]"}),
        ('{"a": NaN}', {"arguments": '{"a": NaN}'}),
        ("Tokyo", {"arguments": "Tokyo"}),
        ('{"a": 1} and more', {"arguments": '{"a": 1} and more'}),
    ],
)
def test_arguments_become_an_object_and_nothing_is_lost(arguments: Any, expected: Any) -> None:
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
    messages = as_read(*written)
    assert messages[0]["content"] == '{"a'
    assert messages[1]["content"] == "Hm."
    assert messages[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": "b"}'}
    assert messages[2]["content"] == '{"c'


def test_a_legacy_call_and_its_result_become_a_tool_call_and_its_result() -> None:
    asked, answered = as_read(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}},
        {"role": "function", "name": "f", "content": "r"},
    )
    [made] = asked["tool_calls"]
    assert made["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert (answered["role"], answered["content"]) == ("tool", "r")
    assert answered["tool_call_id"] == made["id"]


def test_a_call_is_not_read_twice() -> None:
    [message] = as_read(
        {
            "role": "assistant",
            "tool_calls": [call("f", "1")],
            "function_call": {"name": "f", "arguments": "{}"},
        }
    )
    assert ids([message]) == [["1"]]


def test_results_without_an_id_belong_to_the_calls_by_name_or_else_in_order() -> None:
    calls = {"role": "assistant", "tool_calls": [call("f"), call("g"), call("f")]}
    results = [{"role": "tool", "tool_name": "g", "content": "1"}, *[{"role": "tool", "content": "2"}] * 2]
    assert ids(as_read(calls, *results)) == [
        ["call_0_0", "call_0_1", "call_0_2"],
        ["call_0_1"],
        ["call_0_0"],
        ["call_0_2"],
    ]


def test_two_calls_with_one_id_get_two() -> None:
    calls = {"role": "assistant", "tool_calls": [call("f", "f"), call("f", "f")]}
    result = {"role": "tool", "tool_call_id": "f", "content": "1"}
    [first, second], *answers = ids(as_read(calls, result, result))
    assert first != second
    assert answers == [[first], [second]]


def test_ids_that_clients_gave_stay_as_they_are() -> None:
    calls = {"role": "assistant", "tool_calls": [call("f", "functions.f:0"), call("g", "call_1")]}
    results = [
        {"role": "tool", "tool_call_id": each, "content": ""} for each in ("call_1", "functions.f:0", "9")
    ]
    assert ids(as_read(calls, *results)) == [
        ["functions.f:0", "call_1"],
        ["call_1"],
        ["functions.f:0"],
        ["9"],
    ]


def test_a_result_with_an_unknown_id_belongs_to_the_call_that_no_other_answers() -> None:
    calls = {"role": "assistant", "tool_calls": [call("f", "call_1"), call("g", "call_2")]}
    later = {"role": "assistant", "tool_calls": [call("f", "call_3"), call("g", "call_4")]}
    results = [{"role": "tool", "tool_call_id": each, "content": ""} for each in ("cut", "call_1", "call_2x")]
    assert ids(as_read(calls, *results)) == [["call_1", "call_2"], ["call_2"], ["call_1"], ["call_2x"]]
    late = {"role": "tool", "tool_call_id": "call_2", "content": ""}
    assert ids(as_read(calls, later, late)) == [["call_1", "call_2"], ["call_3", "call_4"], ["call_2"]]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "thinking"])
def test_all_names_of_reasoning_are_read(name: str) -> None:
    [message] = as_read({"role": "assistant", "content": "a", name: "why"})
    assert message["reasoning_content"] == "why"


def test_a_refusal_is_what_the_assistant_said() -> None:
    [refused, said] = as_read(
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": "Yes.", "refusal": None},
    )
    assert (refused["content"], said["content"]) == ("No.", "Yes.")


def test_changed_arguments_are_logged_once_a_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    as_read(
        {
            "role": "assistant",
            "tool_calls": [call("f", "1", '{"a": 1}'), call("f", "2", ""), call("f", "3", None)],
        }
    )
    assert caplog.messages == []
    as_read({"role": "assistant", "tool_calls": [call("f", "1"), call("f", "2", "x"), call("f", "3", "y")]})
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith(": messages[0].tool_calls[1]")
