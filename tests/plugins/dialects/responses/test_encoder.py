"""Outputs become events in OpenAI's order; the whole response is that of the last event."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from fllm import ErrorInfo, Event, Finished, PluginError, Reasoning, Text, ToolArguments, ToolStart, Usage
from fllm.events import merge_events
from fllm.pipeline.output_processor import SequenceOutput
from fllm_dialects.responses.encoder import ResponsesEncoder
from fllm_dialects.responses.protocol.requests import TextOptions
from fllm_dialects.responses.protocol.responses import Response
from fllm_dialects.responses.tools import CalledTool

USAGE = Usage(prompt_tokens=5, completion_tokens=7, reasoning_tokens=2, cached_tokens=4)
CALLED = {"patch": CalledTool("custom", "patch"), "n__f": CalledTool("function", "f", "n")}
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

TURN: list[Event] = [
    Reasoning("hm"),
    Reasoning("m"),
    Text("Let "),
    Text("me see."),
    ToolStart(0, "n__f", "call_1"),
    ToolArguments(0, '{"a"'),
    ToolArguments(0, ": 1}"),
    ToolStart(1, "patch", "call_2"),
    ToolArguments(1, '{"input": "+'),
    ToolArguments(1, 'x\\n"}'),
    Finished(reason="tool_calls", usage=USAGE),
]


def new_encoder() -> ResponsesEncoder:
    """Return an encoder of a response without output."""
    response = Response(
        id="resp_1", created_at=1, status="in_progress", model="m", temperature=1, top_p=1, text=TextOptions()
    )
    return ResponsesEncoder(response, CALLED, clock=lambda: 2.0)


def outputs(*steps: Iterable[Event]) -> list[SequenceOutput]:
    """Return an output for each step."""
    return [SequenceOutput(index=0, events=list(step), tokens=[], usage=USAGE) for step in steps]


def encoded(*steps: Iterable[Event]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the events of a stream and the whole response, as JSON with ids in order of their first use."""
    encoder = new_encoder()
    chunks = encoder.start()
    for output in outputs(*steps):
        chunks += encoder.feed(output)
    chunks += encoder.finish()
    ids: dict[str, str] = {}
    events = [_with_short_ids(msgspec.to_builtins(chunk), ids) for chunk in chunks]
    return events, _with_short_ids(msgspec.to_builtins(encoder.fold(chunks)), ids)


def _with_short_ids(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _with_short_ids(item, ids) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_short_ids(item, ids) for item in value]
    prefix, _, random = value.partition("_") if isinstance(value, str) else ("", "", "")
    if len(random) == 32 and prefix in ("msg", "rs", "fc", "ctc"):
        return ids.setdefault(value, f"{prefix}_{len(ids)}")
    return value


def brief(events: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the type of each event, with the index of its item and its piece."""
    keys = ("output_index", "delta")
    return [
        (event["type"].removeprefix("response."), *(event[key] for key in keys if key in event))
        for event in events
    ]


def test_the_events_of_a_turn_are_in_openais_order() -> None:
    events, _ = encoded(*([event] for event in TURN))
    assert brief(events) == [
        ("created",),
        ("in_progress",),
        ("output_item.added", 0),
        ("content_part.added", 0),
        ("reasoning_text.delta", 0, "hm"),
        ("reasoning_text.delta", 0, "m"),
        ("reasoning_text.done", 0),
        ("content_part.done", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("content_part.added", 1),
        ("output_text.delta", 1, "Let "),
        ("output_text.delta", 1, "me see."),
        ("output_text.done", 1),
        ("content_part.done", 1),
        ("output_item.done", 1),
        ("output_item.added", 2),
        ("function_call_arguments.delta", 2, '{"a"'),
        ("function_call_arguments.delta", 2, ": 1}"),
        ("function_call_arguments.done", 2),
        ("output_item.done", 2),
        ("output_item.added", 3),
        ("custom_tool_call_input.delta", 3, "+"),
        ("custom_tool_call_input.delta", 3, "x\n"),
        ("custom_tool_call_input.done", 3),
        ("output_item.done", 3),
        ("completed",),
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_the_whole_response_has_every_item() -> None:
    events, response = encoded(TURN)
    assert response["output"] == [
        {
            "type": "reasoning",
            "id": "rs_0",
            "status": "completed",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "hmm"}],
            "encrypted_content": None,
        },
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Let me see.", "annotations": [], "logprobs": []}],
        },
        {
            "type": "function_call",
            "id": "fc_2",
            "status": "completed",
            "call_id": "call_1",
            "name": "f",
            "namespace": "n",
            "arguments": '{"a": 1}',
        },
        {
            "type": "custom_tool_call",
            "id": "ctc_3",
            "status": "completed",
            "call_id": "call_2",
            "name": "patch",
            "input": "+x\n",
        },
    ]
    assert (response["status"], response["completed_at"]) == ("completed", 2)
    assert response["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == response["output"]
    assert events[0]["response"] | {"output": response["output"]} == response | {
        "status": "in_progress",
        "completed_at": None,
        "usage": None,
    }


def test_openais_types_read_every_event_without_loss() -> None:
    events, response = encoded(*([event] for event in TURN))
    for event in events:
        parsed = STREAM_EVENT.validate_python(event)
        assert parsed.type == event["type"]
        assert type(parsed).__name__ != "ResponseStreamEvent"
    parsed = OpenAIResponse.model_validate(response)
    assert parsed.output_text == "Let me see."
    assert [item.type for item in parsed.output] == [item["type"] for item in response["output"]]
    assert parsed.model_extra == {"store": False}, "documented, but not in the types"


_pieces = st.lists(
    st.one_of(
        st.builds(Text, st.text(min_size=1, max_size=5)),
        st.builds(Reasoning, st.text(min_size=1, max_size=5)),
        st.lists(st.text(max_size=5), min_size=1, max_size=3),
    ),
    max_size=6,
)


@given(_pieces, st.sampled_from(["stop", "length", "tool_calls", "abort"]), st.data())
def test_the_whole_response_does_not_depend_on_the_division_into_outputs(
    pieces: list[Any], reason: Any, data: st.DataObject
) -> None:
    events, calls = [], itertools.count()
    for piece in pieces:
        if isinstance(piece, list):
            index = next(calls)
            events += [
                ToolStart(index, data.draw(st.sampled_from(["patch", "n__f", "g"])), f"call_{index}"),
                *(ToolArguments(index, text) for text in piece),
            ]
        else:
            events.append(piece)
    events.append(Finished(reason=reason, usage=USAGE))
    streamed, response = encoded(*([event] for event in events))
    assert streamed[-1]["response"] == response
    assert encoded(merge_events(events))[1] == response
    texts = "".join(event["delta"] for event in streamed if event["type"] == "response.output_text.delta")
    assert texts == "".join(event.text for event in events if isinstance(event, Text))


@pytest.mark.parametrize(
    ("last", "status"), [(Text("a"), "incomplete"), (ToolArguments(0, '{"a'), "incomplete")]
)
def test_an_output_that_is_cut_off_is_incomplete(last: Event, status: str) -> None:
    start = [ToolStart(0, "g", "call_1")] if isinstance(last, ToolArguments) else []
    events, response = encoded([*start, last, Finished(reason="length", usage=USAGE)])
    assert events[-1]["type"] == "response.incomplete"
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (response["completed_at"], response["output"][-1]["status"]) == (None, status)


def test_an_output_without_text_is_a_response_without_items() -> None:
    events, response = encoded([Finished(reason="stop", usage=USAGE)])
    assert (response["output"], response["status"]) == ([], "completed")
    assert brief(events) == [("created",), ("in_progress",), ("completed",)]


def test_an_aborted_generation_is_a_failed_response() -> None:
    events, response = encoded([Text("a")], [Finished(reason="abort", usage=USAGE)])
    assert events[-1]["type"] == "response.failed"
    assert response["error"] == {"code": "server_error", "message": "the generation was aborted"}


def test_an_error_ends_the_stream_with_what_there_is() -> None:
    encoder = new_encoder()
    chunks = [*encoder.start(), *encoder.feed(*outputs([Reasoning("r"), Text("half")]))]
    last = encoder.error(ErrorInfo("it broke", "server_error", code="engine"))
    events = msgspec.to_builtins([*chunks, *last])
    assert events[-2] == {
        "type": "error",
        "sequence_number": len(events) - 2,
        "code": "engine",
        "message": "it broke",
        "param": None,
    }
    response = events[-1]["response"]
    assert (events[-1]["type"], response["status"]) == ("response.failed", "failed")
    assert response["error"] == {"code": "server_error", "message": "it broke"}
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert encoder.response.status == "failed"
    for event in events:
        STREAM_EVENT.validate_python(event)


def test_an_error_of_a_limit_has_openais_code() -> None:
    info = ErrorInfo("slow down", "rate_limit_error", code="rate_limit_exceeded")
    *_, last = new_encoder().error(info)
    assert msgspec.to_builtins(last)["response"]["error"]["code"] == "rate_limit_exceeded"


def test_arguments_of_a_call_that_has_ended_are_an_error_of_the_parser() -> None:
    encoder = new_encoder()
    encoder.feed(*outputs([ToolStart(0, "g", "call_1"), Text("a")]))
    with pytest.raises(PluginError, match="after another item had begun"):
        encoder.feed(*outputs([ToolArguments(0, "{}")]))
