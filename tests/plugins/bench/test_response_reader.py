"""Responses in pieces of any size."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire_server import event

from fllm_bench.response_reader import BadResponse, Completion, EventStreamReader, JsonReader, message_of

LENGTH = {"choices": [{"finish_reason": "length"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
DONE = event(b"[DONE]")


def text(value: str) -> bytes:
    return event({"id": "x", "choices": [{"index": 0, "text": value, "finish_reason": None}], "usage": None})


def streamed(*pieces: bytes) -> Completion:
    reader = EventStreamReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.completion()


STREAM = b": ping\n\n" + text("é") + text(" b").replace(b"\n", b"\r\n") + event(LENGTH) + event(USAGE) + DONE


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_any_division_of_a_stream_gives_the_same_counts(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    completion = streamed(*(STREAM[i:j] for i, j in pairwise(edges)))
    assert (completion.prompt_tokens, completion.output_tokens) == (7, 3)
    assert 0 < completion.first_token <= completion.last_token <= completion.end


def test_without_usage_chunks_with_text_are_counted() -> None:
    completion = streamed(text("a"), text(""), text("b"), event(LENGTH), DONE)
    assert (completion.prompt_tokens, completion.output_tokens) == (0, 2)


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning"])
def test_text_of_a_chat_counts_wherever_it_stands(field: str) -> None:
    role = event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    assert streamed(role, event({"choices": [{"delta": {field: "a"}}]}), DONE).output_tokens == 1


def test_a_piece_of_a_tool_call_is_a_token() -> None:
    call = event({"choices": [{"delta": {"content": None, "tool_calls": [{"index": 0, "id": "call_1"}]}}]})
    assert streamed(call, DONE).output_tokens == 1


def test_a_token_without_text_comes_with_the_finish() -> None:
    completion = streamed(event(LENGTH), event(USAGE), DONE)
    assert 0 < completion.first_token == completion.last_token <= completion.end


def test_time_per_token_needs_two_of_them() -> None:
    times = {"first_token": 1.0, "last_token": 3.0, "end": 4.0, "prompt_tokens": 1}
    assert Completion(output_tokens=1, **times).per_token is None
    assert Completion(output_tokens=5, **times).per_token == 0.5


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([], "the stream ended before the response was complete"),
        ([text("a")], "the stream ended before the response was complete"),
        ([text("a"), event({"error": {"message": "out of memory"}}), DONE], "out of memory"),
        ([event(b"{"), text("a"), DONE], "malformed response: "),
        ([event({"choices": 1}), DONE], "malformed response: Expected `array`, got `int`"),
    ],
)
def test_a_stream_that_breaks_is_a_bad_response(pieces: list[bytes], message: str) -> None:
    with pytest.raises(BadResponse, match=message):
        streamed(*pieces)


def test_a_whole_response_has_one_time() -> None:
    reader = JsonReader()
    for piece in (b'{"choices":[{"text":"a"}],"usa', b'ge":{"prompt_tokens":2,"completion_tokens":1}}'):
        reader.feed(piece)
    completion = reader.completion()
    assert (completion.prompt_tokens, completion.output_tokens) == (2, 1)
    assert completion.first_token == completion.last_token == completion.end


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": {"message": "no"}}'])
def test_a_bad_whole_response_is_an_error(body: bytes) -> None:
    reader = JsonReader()
    reader.feed(body)
    with pytest.raises(BadResponse):
        reader.completion()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "too\\n long", "code": 400}}', "too long"),
        (b'{"error": "not found"}', "not found"),
        (b'{"object": "error", "message": "bad"}', "bad"),
        (b'{"detail": [{"loc": ["body"]}]}', "[{'loc': ['body']}]"),
        (b'{"code": 1}', "{'code': 1}"),
        (b"<h1>Bad\ngateway</h1>\xff", "<h1>Bad gateway</h1>\N{REPLACEMENT CHARACTER}"),
        (b"x" * 999, "x" * 200),
        (b"", ""),
    ],
)
def test_the_reason_is_found_in_every_servers_shape(body: bytes, message: str) -> None:
    assert message_of(body) == message
