from __future__ import annotations

from collections.abc import Sequence

from fllm import Collector, RequestRecord
from fllm.pipeline.request_tracker import RequestTracker


class Recorder(Collector):
    """A collector that records the calls it receives."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def on_request_start(self, request: RequestRecord) -> None:
        self.calls.append(("on_request_start", request.received_at))

    def on_first_token(self, request: RequestRecord) -> None:
        self.calls.append(("on_first_token", request.first_token_at, request.queue_time))

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        self.calls.append(("on_progress", [round(gap, 3) for gap in gaps], tokens))

    def on_request_end(self, request: RequestRecord) -> None:
        self.calls.append(("on_request_end", request.finished_at, request.generated_tokens, request.error))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_request_is_reported_from_arrival_to_completion() -> None:
    clock, recorder = Clock(), Recorder()
    tracker = RequestTracker("r", [recorder], clock)
    for tokens, seconds in ((1, 0.5), (1, 0.1), (2, 0.2)):
        clock.now += seconds
        tracker.step(0, tokens, queue_time=0.25 if tracker.first_token_at is None else 0.0)
    tracker.finish()
    assert recorder.calls == [
        ("on_request_start", 100.0),
        ("on_first_token", 100.5, 0.25),
        ("on_progress", [0.1, 0.2], 4),
        ("on_request_end", clock.now, 4, None),
    ]


def test_progress_is_reported_at_most_once_a_second() -> None:
    clock, recorder = Clock(), Recorder()
    tracker = RequestTracker("r", [recorder], clock)
    for _ in range(250):
        clock.now += 0.01
        tracker.step(0, 1)
    tracker.finish()
    reports = [call for call in recorder.calls if call[0] == "on_progress"]
    assert len(reports) == 3
    assert sum(report[2] for report in reports) == 250  # type: ignore[misc]
    assert sum(len(report[1]) for report in reports) == 249  # type: ignore[arg-type]


def test_gaps_are_measured_within_each_sequence() -> None:
    clock, recorder = Clock(), Recorder()
    tracker = RequestTracker("r", [recorder], clock)
    for index, seconds in ((0, 0.0), (1, 0.1), (0, 0.1), (1, 0.1)):
        clock.now += seconds
        tracker.step(index, 1)
    tracker.finish()
    assert ("on_progress", [0.2, 0.2], 4) in recorder.calls


def test_a_request_that_fails_before_its_first_token_reports_the_error() -> None:
    recorder = Recorder()
    RequestTracker("r", [recorder]).finish("no such field")
    assert [call[0] for call in recorder.calls] == ["on_request_start", "on_request_end"]
    assert recorder.calls[-1][3] == "no such field"


def test_cached_tokens_count_once_per_prompt_by_its_first_sequence() -> None:
    tracker = RequestTracker("r")
    tracker.submit(prompt_tokens=20, max_tokens=5, n=2)
    for index, cached in ((1, 9), (0, 4), (0, 4), (2, 0), (2, 3)):
        tracker.step(index, 1, cached=cached)
    assert tracker.cached_tokens == 7


def test_finish_reasons_are_in_order_of_index_and_the_first_of_each_counts() -> None:
    tracker = RequestTracker("r")
    for index, reason in ((1, "length"), (0, "stop"), (0, "abort")):
        tracker.end(index, reason)
    assert tracker.finish_reasons == ("stop", "length")


def test_two_requests_with_the_same_id_have_different_keys() -> None:
    assert RequestTracker("r").key != RequestTracker("r").key
