"""The line in the log for each request."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fllm import Collector
from fllm.logs import FIELDS
from fllm.pipeline.request_tracker import RequestTracker
from fllm_metrics.access_log import AccessLog


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def a_trace(clock: Clock, path: str = "/v1/chat/completions") -> RequestTracker:
    return RequestTracker("abc", (), clock, method="POST", path=path, client="key:ab12cd34")


def logged(trace: RequestTracker, caplog: pytest.LogCaptureFixture) -> tuple[str, dict[str, Any]]:
    with caplog.at_level(logging.INFO, "fllm.access"):
        AccessLog().on_http_request_end(trace)
    [record] = caplog.records
    assert vars(record)["request_id"] == "abc"
    return record.getMessage(), vars(record)[FIELDS]


def test_an_answer_has_its_tokens_and_times(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    trace = a_trace(clock)
    trace.submit(prompt_tokens=7, max_tokens=40, streamed=True)
    clock.now += 0.5
    trace.step(0, 1, queue_time=0.125, cached=4)
    clock.now += 2
    trace.step(0, 10)
    trace.end(0, "stop")
    trace.status = 200
    trace.finish()
    line, fields = logged(trace, caplog)
    assert line == (
        "key:ab12cd34 POST /v1/chat/completions 200 in 2.5 s; prompt 7 (4 cached), generated 11, "
        "queued 0.125 s, first token 0.5 s, 5.0 tokens/s"
    )
    assert fields == {
        "client": "key:ab12cd34",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "seconds": 2.5,
        "prompt_tokens": 7,
        "cached_tokens": 4,
        "generated_tokens": 11,
        "queue_seconds": 0.125,
        "ttft_seconds": 0.5,
        "tokens_per_second": 5.0,
        "stream": True,
        "finish_reasons": ["stop"],
    }


def test_what_was_refused_says_why_and_has_no_tokens(caplog: pytest.LogCaptureFixture) -> None:
    trace = a_trace(Clock())
    trace.status = 401
    trace.finish("a valid API key is needed")
    line, fields = logged(trace, caplog)
    assert line == "key:ab12cd34 POST /v1/chat/completions 401 in 0.0 s; a valid API key is needed"
    assert "prompt_tokens" not in fields


def test_a_client_that_left_before_the_first_token_was_not_answered(caplog: pytest.LogCaptureFixture) -> None:
    trace = a_trace(Clock())
    trace.submit(prompt_tokens=7, max_tokens=40)
    trace.finish("the client went away")
    line, _ = logged(trace, caplog)
    assert " unanswered in 0.0 s; prompt 7 (0 cached), generated 0, queued 0.0 s, first token -, -; " in line


def test_a_long_path_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    trace = a_trace(Clock(), "/v1/models/" + "x" * 10_000)
    trace.finish()
    assert len(logged(trace, caplog)[1]["path"]) == 256


def test_it_hears_of_all_requests() -> None:
    assert isinstance(AccessLog(), Collector)
