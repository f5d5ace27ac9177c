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


def a_tracker(clock: Clock, path: str = "/v1/chat/completions") -> RequestTracker:
    return RequestTracker("abc", (), clock, method="POST", path=path, client="key:ab12cd34")


def logged(tracker: RequestTracker, caplog: pytest.LogCaptureFixture) -> tuple[str, dict[str, Any]]:
    with caplog.at_level(logging.INFO, "fllm.access"):
        AccessLog().on_http_request_end(tracker)
    [record] = caplog.records
    assert vars(record)["request_id"] == "abc"
    return record.getMessage(), vars(record)[FIELDS]


def test_a_response_is_logged_with_tokens_and_times(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    tracker = a_tracker(clock)
    tracker.submit(prompt_tokens=7, max_tokens=40, streamed=True)
    clock.now += 0.5
    tracker.step(0, 1, queue_time=0.125, cached=4)
    clock.now += 2
    tracker.step(0, 10)
    tracker.end(0, "stop")
    tracker.status = 200
    tracker.finish()
    line, fields = logged(tracker, caplog)
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


def test_the_adapter_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    tracker = a_tracker(Clock())
    tracker.submit(prompt_tokens=7, max_tokens=9, adapter="my sql")
    tracker.finish()
    line, fields = logged(tracker, caplog)
    assert line.endswith(", adapter my%20sql")
    assert fields["adapter"] == "my sql"


def test_a_rejected_request_is_logged_with_its_error_and_without_tokens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = a_tracker(Clock())
    tracker.status = 401
    tracker.finish("a valid API key is needed")
    line, fields = logged(tracker, caplog)
    assert line == "key:ab12cd34 POST /v1/chat/completions 401 in 0.0 s; a valid API key is needed"
    assert "prompt_tokens" not in fields


def test_a_client_that_left_before_the_first_token_is_unanswered(caplog: pytest.LogCaptureFixture) -> None:
    tracker = a_tracker(Clock())
    tracker.submit(prompt_tokens=7, max_tokens=40)
    tracker.finish("the client went away")
    line, _ = logged(tracker, caplog)
    assert " unanswered in 0.0 s; prompt 7 (0 cached), generated 0, queued 0.0 s, first token -, -; " in line


def test_a_long_path_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    tracker = a_tracker(Clock(), "/v1/models/" + "x" * 10_000)
    tracker.finish()
    assert len(logged(tracker, caplog)[1]["path"]) == 256


def test_a_path_is_one_word_of_the_line(caplog: pytest.LogCaptureFixture) -> None:
    tracker = a_tracker(Clock(), "/theirs/a 200 in 0.1 s; \u2028\x1b[2J\ud800é")
    tracker.status = 404
    tracker.finish()
    line, fields = logged(tracker, caplog)
    assert line.startswith("key:ab12cd34 POST /theirs/a%20200%20in%200.1%20s%3B%20%E2%80%A8%1B%5B2J")
    assert line.endswith("%C3%A9 404 in 0.0 s")
    assert fields["path"] == tracker.path


def test_it_logs_all_requests() -> None:
    assert isinstance(AccessLog(), Collector)


def test_a_model_that_was_chosen_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    tracker = a_tracker(Clock())
    tracker.choose_model("org/small model")
    tracker.status = 200
    tracker.finish()
    line, fields = logged(tracker, caplog)
    assert line.endswith(" 200 in 0.0 s, model org/small%20model")
    assert fields["model"] == "org/small model"
