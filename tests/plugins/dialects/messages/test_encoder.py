"""The events of a stream, in Anthropic's order; the whole message is what a client makes of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message as SdkMessage
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fllm import (
    ErrorInfo,
    Event,
    Finished,
    Reasoning,
    SequenceOutput,
    Text,
    ToolArguments,
    ToolStart,
    Usage,
)
from fllm_dialects.messages.encoder import SIGNATURE, MessageEncoder, MessageHeader
from fllm_dialects.messages.events import StreamEvent

USAGE = Usage(prompt_tokens=20, completion_tokens=7, reasoning_tokens=3, cached_tokens=16)
END = Finished(reason="stop", usage=USAGE)
sdk_event = TypeAdapter[Any](RawMessageStreamEvent)


def header(**fields: Any) -> MessageHeader:
    return MessageHeader(**{"id": "msg_1", "model": "m", "prompt_tokens": 20, "max_tokens": 9, **fields})


def encode(*outputs: list[Event], encoder: MessageEncoder | None = None) -> list[StreamEvent]:
    encoder = encoder or MessageEncoder(header())
    chunks = encoder.start()
    for events in outputs:
        chunks += encoder.feed(SequenceOutput(index=0, events=events, tokens=[], usage=USAGE))
    return chunks + encoder.finish()


def jsons(chunks: list[StreamEvent]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [json.loads(msgspec.json.encode(chunk)) for chunk in chunks]
    return found


def whole(*outputs: list[Event], **fields: Any) -> dict[str, Any]:
    encoder = MessageEncoder(header(**fields))
    found: dict[str, Any] = json.loads(msgspec.json.encode(encoder.fold(encode(*outputs, encoder=encoder))))
    return found


ALL_KINDS: list[Event] = [
    Reasoning("Hm"),
    Reasoning("."),
    Text("Let me "),
    Text("look ☀."),
    ToolStart(0, "read", "call_1"),
    ToolArguments(0, '{"path": '),
    ToolArguments(0, '"ä"}'),
    ToolStart(1, "now", "f:1"),
    Finished(reason="tool_calls", usage=USAGE),
]


def test_the_order_of_the_events() -> None:
    usage = {
        "input_tokens": 4,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 16,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 3},
    }
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    assert jsons(encode(ALL_KINDS)) == [
        {"type": "message_start", "message": message},
        block_start(0, {"type": "thinking", "thinking": "", "signature": ""}),
        block_delta(0, {"type": "thinking_delta", "thinking": "Hm"}),
        block_delta(0, {"type": "thinking_delta", "thinking": "."}),
        block_delta(0, {"type": "signature_delta", "signature": SIGNATURE}),
        {"type": "content_block_stop", "index": 0},
        block_start(1, {"type": "text", "text": ""}),
        block_delta(1, {"type": "text_delta", "text": "Let me "}),
        block_delta(1, {"type": "text_delta", "text": "look ☀."}),
        {"type": "content_block_stop", "index": 1},
        block_start(2, {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {}}),
        block_delta(2, {"type": "input_json_delta", "partial_json": '{"path": '}),
        block_delta(2, {"type": "input_json_delta", "partial_json": '"ä"}'}),
        {"type": "content_block_stop", "index": 2},
        block_start(3, {"type": "tool_use", "id": "f:1", "name": "now", "input": {}}),
        {"type": "content_block_stop", "index": 3},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": usage,
        },
        {"type": "message_stop"},
    ]


def block_start(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def block_delta(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def test_the_whole_message() -> None:
    found = whole(ALL_KINDS)
    assert found["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": SIGNATURE},
        {"type": "text", "text": "Let me look ☀."},
        {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "ä"}},
        {"type": "tool_use", "id": "f:1", "name": "now", "input": {}},
    ]
    assert found["stop_reason"] == "tool_use"
    SdkMessage.model_validate(found)


pieces = st.lists(
    st.builds(Text, st.text("ab☀", min_size=1))
    | st.builds(Reasoning, st.text("cd ", min_size=1))
    | st.sampled_from([[], ['{"a":1}'], ['{"a', '": "', '☀"', "}"]]),
    max_size=8,
)


@given(pieces, st.data())
def test_any_division_of_an_output_gives_the_message_that_the_sdk_makes(
    given_pieces: list[Any], data: st.DataObject
) -> None:
    events: list[Event] = []
    for i, piece in enumerate(given_pieces):
        if isinstance(piece, list):
            events += [ToolStart(i, "f", f"call_{i}"), *(ToolArguments(i, text) for text in piece)]
        else:
            events.append(piece)
    events.append(END)
    divided: list[list[Event]] = [[]]
    for event in events:
        divided += [[]] if data.draw(st.booleans()) else []
        divided[-1].append(event)
    expected = whole(events)
    assert whole(*divided) == expected
    snapshot, buffers = None, dict[int, bytes]()
    for event in jsons(encode(*divided)):
        snapshot = accumulate_event(
            event=sdk_event.validate_python(event), current_snapshot=snapshot, json_bufs=buffers
        )
    assert snapshot is not None
    seen = snapshot.model_dump(exclude_unset=True)
    assert without(seen, "stop_details") == without(expected, "stop_details")


def without(message: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key != name}


@pytest.mark.parametrize(
    ("finished", "reason", "sequence"),
    [
        (END, "end_turn", None),
        (Finished(reason="stop", stop_reason=5, usage=USAGE), "end_turn", None),
        (Finished(reason="stop", stop_reason="ab", usage=USAGE), "stop_sequence", "ab"),
        (Finished(reason="tool_calls", stop_reason="ab", usage=USAGE), "stop_sequence", "ab"),
        (Finished(reason="tool_calls", usage=USAGE), "tool_use", None),
        (Finished(reason="length", usage=USAGE), "model_context_window_exceeded", None),
        (Finished(reason="length", usage=Usage(completion_tokens=9)), "max_tokens", None),
        (Finished(reason="abort", usage=USAGE), "pause_turn", None),
    ],
)
def test_why_an_output_ended(finished: Finished, reason: str, sequence: str | None) -> None:
    found = whole([finished])
    assert (found["stop_reason"], found["stop_sequence"]) == (reason, sequence)
    assert found["content"] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {}),
        (" {}\n", {}),
        ('{"a": 1e3, "b": "ä"}', {"a": 1000.0, "b": "ä"}),
        ('{"a": [1, "b', {"a": [1, "b"]}),
        ("[1]", {"arguments": "[1]"}),
        ("so what", {"arguments": "so what"}),
        ('{"a": 1} {"b"', {"arguments": '{"a": 1} {"b"'}),
    ],
)
def test_the_input_of_a_call_is_an_object(arguments: str, expected: Any) -> None:
    [block] = whole([ToolStart(0, "f", "call_1"), ToolArguments(0, arguments), END])["content"]
    assert block["input"] == expected


def test_calls_may_take_turns() -> None:
    events: list[Event] = [
        ToolStart(0, "f", "a"),
        ToolStart(1, "g", "b"),
        ToolArguments(0, '{"a":1}'),
        ToolArguments(1, '{"b":2}'),
        END,
    ]
    assert [block["input"] for block in whole(events)["content"]] == [{"a": 1}, {"b": 2}]


def test_without_output_a_message_is_empty() -> None:
    found = whole([Text("a"), END], max_tokens=0)
    assert (found["content"], found["stop_reason"]) == ([], "max_tokens")
    assert found["usage"]["output_tokens"] == 0
    assert found["usage"]["cache_read_input_tokens"] == 16


def test_edits_of_the_conversation_are_answered_honestly() -> None:
    assert whole([END], context_management=True)["context_management"] == {"applied_edits": []}
    assert "context_management" not in whole([END])


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ErrorInfo("down", "server_error", code="unavailable"), "overloaded_error", "down"),
        (ErrorInfo("bug", "server_error"), "api_error", "bug"),
        (ErrorInfo("late", "timeout_error"), "timeout_error", "late"),
        (
            ErrorInfo("bad schema", "invalid_request_error", "tools"),
            "invalid_request_error",
            "tools: bad schema",
        ),
    ],
)
def test_a_stream_can_end_with_an_error(error: ErrorInfo, kind: str, message: str) -> None:
    [event] = jsons(MessageEncoder(header()).error(error))
    assert event == {"type": "error", "error": {"type": kind, "message": message}}
