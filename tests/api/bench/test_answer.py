"""Answers, read from pieces of any size."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire_server import event

from fllm_api.bench.answer import Answer, BadAnswer, StreamedAnswer, WholeAnswer, reason

LENGTH = {"choices": [{"finish_reason": "length"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
DONE = event(b"[DONE]")


def text(value: str) -> bytes:
    return event({"id": "x", "choices": [{"index": 0, "text": value, "finish_reason": None}], "usage": None})


def streamed(*pieces: bytes) -> Answer:
    reader = StreamedAnswer()
    for piece in pieces:
        reader.feed(piece)
    return reader.answer()


STREAM = b": ping\n\n" + text("é") + text(" b").replace(b"\n", b"\r\n") + event(LENGTH) + event(USAGE) + DONE


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_any_division_of_a_stream_gives_the_same_counts(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    answer = streamed(*(STREAM[i:j] for i, j in pairwise(edges)))
    assert (answer.prompt_tokens, answer.output_tokens) == (7, 3)
    assert 0 < answer.first_token <= answer.last_token <= answer.end


def test_without_usage_chunks_with_text_are_counted() -> None:
    answer = streamed(text("a"), text(""), text("b"), event(LENGTH), DONE)
    assert (answer.prompt_tokens, answer.output_tokens) == (0, 2)


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning"])
def test_text_of_a_chat_counts_wherever_it_stands(field: str) -> None:
    role = event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    assert streamed(role, event({"choices": [{"delta": {field: "a"}}]}), DONE).output_tokens == 1


def test_a_token_without_text_comes_with_the_finish() -> None:
    answer = streamed(event(LENGTH), event(USAGE), DONE)
    assert 0 < answer.first_token == answer.last_token <= answer.end


def test_time_per_token_needs_two_of_them() -> None:
    times = {"first_token": 1.0, "last_token": 3.0, "end": 4.0, "prompt_tokens": 1}
    assert Answer(output_tokens=1, **times).per_token is None
    assert Answer(output_tokens=5, **times).per_token == 0.5


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ([], "the stream ended before the answer did"),
        ([text("a")], "the stream ended before the answer did"),
        ([text("a"), event({"error": {"message": "out of memory"}}), DONE], "out of memory"),
        ([event(b"{"), text("a"), DONE], "an answer that can't be read: "),
        ([event({"choices": 1}), DONE], "an answer that can't be read: Expected `array`, got `int`"),
    ],
)
def test_a_stream_that_breaks_is_no_answer(pieces: list[bytes], says: str) -> None:
    with pytest.raises(BadAnswer, match=says):
        streamed(*pieces)


def test_a_whole_answer_has_one_time() -> None:
    reader = WholeAnswer()
    for piece in (b'{"choices":[{"text":"a"}],"usa', b'ge":{"prompt_tokens":2,"completion_tokens":1}}'):
        reader.feed(piece)
    answer = reader.answer()
    assert (answer.prompt_tokens, answer.output_tokens) == (2, 1)
    assert answer.first_token == answer.last_token == answer.end


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": {"message": "no"}}'])
def test_a_whole_answer_that_is_none_is_told(body: bytes) -> None:
    reader = WholeAnswer()
    reader.feed(body)
    with pytest.raises(BadAnswer):
        reader.answer()


@pytest.mark.parametrize(
    ("body", "says"),
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
def test_the_reason_is_found_in_every_servers_shape(body: bytes, says: str) -> None:
    assert reason(body) == says
