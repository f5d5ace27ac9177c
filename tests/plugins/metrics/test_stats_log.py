"""The line in the log."""

import logging

import pytest

from fllm import EngineStats, Ticking
from fllm.pipeline.request_tracker import RequestTracker
from fllm_metrics.stats_log import LogCollector


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A collector, and the hand on its clock."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "fllm.stats")
        self.clock = Clock()
        self.collector = LogCollector(self.clock)
        self._caplog = caplog

    def request(self, name: str, prompt_tokens: int) -> RequestTracker:
        trace = RequestTracker(name, (self.collector,), self.clock)
        trace.prompt_tokens = prompt_tokens
        return trace

    def after(self, seconds: float, status: EngineStats | None) -> list[str]:
        """The lines of so many seconds, ticking once in each."""
        self._caplog.clear()
        for _ in range(int(seconds)):
            self.clock.now += 1
            self.collector.tick(status)
        return self._caplog.messages


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    return Bench(caplog)


def test_a_line_tells_of_the_last_ten_seconds(bench: Bench) -> None:
    trace = bench.request("one", prompt_tokens=50)
    bench.request("two", prompt_tokens=9)
    trace.step(0, 1)
    bench.clock.now += 2
    trace.step(0, 20)
    status = EngineStats(kv_blocks=8, kv_blocks_used=1, prefix_queries=50, prefix_hits=20)
    assert bench.after(8, status) == [
        "1 running, 1 waiting, prompt 5.0 tokens/s, generation 2.1 tokens/s; "
        "KV cache 12.5% used, prefix cache 40.0% hit"
    ]


def test_there_is_one_line_in_ten_seconds_while_there_is_work(bench: Bench) -> None:
    bench.request("one", prompt_tokens=1)
    assert bench.after(9, EngineStats()) == []
    assert len(bench.after(1, EngineStats())) == 1
    assert len(bench.after(30, EngineStats())) == 3


def test_an_idle_server_is_silent(bench: Bench) -> None:
    assert bench.after(60, EngineStats()) == []


def test_work_that_ended_within_the_window_is_told_once(bench: Bench) -> None:
    trace = bench.request("one", prompt_tokens=30)
    trace.step(0, 5)
    trace.finish()
    assert bench.after(10, EngineStats()) == [
        "0 running, 0 waiting, prompt 3.0 tokens/s, generation 0.5 tokens/s; "
        "KV cache 0.0% used, prefix cache 0.0% hit"
    ]
    assert bench.after(60, EngineStats()) == []


def test_hits_are_those_of_the_window(bench: Bench) -> None:
    bench.request("one", prompt_tokens=1)
    bench.after(10, EngineStats(prefix_queries=100, prefix_hits=100))
    (line,) = bench.after(10, EngineStats(prefix_queries=150, prefix_hits=110))
    assert line.endswith("prefix cache 20.0% hit")


def test_an_engine_that_was_started_again_counts_from_zero(bench: Bench) -> None:
    bench.request("one", prompt_tokens=1)
    bench.after(10, EngineStats(prefix_queries=100, prefix_hits=100))
    (line,) = bench.after(10, EngineStats(prefix_queries=10, prefix_hits=5))
    assert line.endswith("prefix cache 50.0% hit")


def test_an_engine_that_does_not_answer_is_told(bench: Bench) -> None:
    bench.request("one", prompt_tokens=1)
    (line,) = bench.after(10, None)
    assert line.endswith("; the engine does not answer")


def test_it_wants_to_be_ticked(bench: Bench) -> None:
    assert isinstance(bench.collector, Ticking)
