"""The line in the log."""

import logging

import pytest

from fllm import Collector, EngineStats
from fllm.pipeline.request_tracker import RequestTracker
from fllm_metrics.stats_log import StatsLog


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class LogHarness:
    """A collector with a manual clock."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "fllm.stats")
        self.clock = Clock()
        self.collector = StatsLog(self.clock)
        self._caplog = caplog

    def request(self, name: str, prompt_tokens: int) -> RequestTracker:
        tracker = RequestTracker(name, (self.collector,), self.clock)
        tracker.prompt_tokens = prompt_tokens
        return tracker

    def after(self, seconds: float, status: EngineStats | None) -> list[str]:
        """Return the lines logged during these seconds, with one tick per second."""
        self._caplog.clear()
        for _ in range(int(seconds)):
            self.clock.now += 1
            self.collector.on_interval(status)
        return self._caplog.messages


@pytest.fixture
def harness(caplog: pytest.LogCaptureFixture) -> LogHarness:
    return LogHarness(caplog)


def test_a_line_describes_the_last_ten_seconds(harness: LogHarness) -> None:
    tracker = harness.request("one", prompt_tokens=50)
    harness.request("two", prompt_tokens=9)
    tracker.step(0, 1)
    harness.clock.now += 2
    tracker.step(0, 20)
    status = EngineStats(kv_blocks=8, kv_blocks_used=1, prefix_queries=50, prefix_hits=20)
    assert harness.after(8, status) == [
        "1 running, 1 waiting, prompt 5.0 tokens/s, generation 2.1 tokens/s; "
        "KV cache 12.5% used, prefix cache 40.0% hit"
    ]


def test_there_is_one_line_in_ten_seconds_while_there_is_work(harness: LogHarness) -> None:
    harness.request("one", prompt_tokens=1)
    assert harness.after(9, EngineStats()) == []
    assert len(harness.after(1, EngineStats())) == 1
    assert len(harness.after(30, EngineStats())) == 3


def test_an_idle_server_is_silent(harness: LogHarness) -> None:
    assert harness.after(60, EngineStats()) == []


def test_work_that_ended_within_the_window_is_logged_once(harness: LogHarness) -> None:
    tracker = harness.request("one", prompt_tokens=30)
    tracker.step(0, 5)
    tracker.finish()
    assert harness.after(10, EngineStats()) == [
        "0 running, 0 waiting, prompt 3.0 tokens/s, generation 0.5 tokens/s; "
        "KV cache 0.0% used, prefix cache 0.0% hit"
    ]
    assert harness.after(60, EngineStats()) == []


def test_hits_are_those_of_the_window(harness: LogHarness) -> None:
    harness.request("one", prompt_tokens=1)
    harness.after(10, EngineStats(prefix_queries=100, prefix_hits=100))
    (line,) = harness.after(10, EngineStats(prefix_queries=150, prefix_hits=110))
    assert line.endswith("prefix cache 20.0% hit")


def test_an_engine_that_was_started_again_counts_from_zero(harness: LogHarness) -> None:
    harness.request("one", prompt_tokens=1)
    harness.after(10, EngineStats(prefix_queries=100, prefix_hits=100))
    (line,) = harness.after(10, EngineStats(prefix_queries=10, prefix_hits=5))
    assert line.endswith("prefix cache 50.0% hit")


def test_an_engine_that_does_not_respond_is_logged(harness: LogHarness) -> None:
    harness.request("one", prompt_tokens=1)
    (line,) = harness.after(10, None)
    assert line.endswith("; the engine does not respond")


def test_it_is_a_collector(harness: LogHarness) -> None:
    assert isinstance(harness.collector, Collector)
