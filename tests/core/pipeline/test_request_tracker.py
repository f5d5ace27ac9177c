from __future__ import annotations

from collections.abc import Sequence

from fllm import RequestRecord
from fllm.pipeline.request_tracker import RequestTracker


class Recorder:
    """A collector that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def received(self, request: RequestRecord) -> None:
        self.heard.append(("received", request.received_at))

    def started(self, request: RequestRecord) -> None:
        self.heard.append(("started", request.first_token_at, request.queue_time))

    def progressed(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        self.heard.append(("progressed", [round(gap, 3) for gap in gaps], tokens))

    def finished(self, request: RequestRecord) -> None:
        self.heard.append(("finished", request.finished_at, request.generated_tokens, request.error))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_request_is_told_from_its_arrival_to_its_end() -> None:
    clock, recorder = Clock(), Recorder()
    tracker = RequestTracker("r", [recorder], clock)
    for tokens, seconds in ((1, 0.5), (1, 0.1), (2, 0.2)):
        clock.now += seconds
        tracker.step(0, tokens, queue_time=0.25 if tracker.first_token_at is None else 0.0)
    tracker.finish()
    assert recorder.heard == [
        ("received", 100.0),
        ("started", 100.5, 0.25),
        ("progressed", [0.1, 0.2], 4),
        ("finished", clock.now, 4, None),
    ]


def test_progress_is_told_at_most_once_a_second() -> None:
    clock, recorder = Clock(), Recorder()
    tracker = RequestTracker("r", [recorder], clock)
    for _ in range(250):
        clock.now += 0.01
        tracker.step(0, 1)
    tracker.finish()
    reports = [heard for heard in recorder.heard if heard[0] == "progressed"]
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
    assert ("progressed", [0.2, 0.2], 4) in recorder.heard


def test_a_request_that_fails_before_its_first_token_says_why() -> None:
    recorder = Recorder()
    RequestTracker("r", [recorder]).finish("no such field")
    assert [heard[0] for heard in recorder.heard] == ["received", "finished"]
    assert recorder.heard[-1][3] == "no such field"


def test_each_prompt_that_was_cached_counts_once_by_its_first_answer() -> None:
    tracker = RequestTracker("r")
    tracker.submit(prompt_tokens=20, max_tokens=5, answers=2)
    for index, cached in ((1, 9), (0, 4), (0, 4), (2, 0), (2, 3)):
        tracker.step(index, 1, cached=cached)
    assert tracker.cached_tokens == 7


def test_reasons_are_in_the_order_of_the_answers_and_the_first_of_each_counts() -> None:
    tracker = RequestTracker("r")
    for index, reason in ((1, "length"), (0, "stop"), (0, "abort")):
        tracker.end(index, reason)
    assert tracker.finish_reasons == ("stop", "length")


def test_two_requests_of_one_id_have_keys_of_their_own() -> None:
    assert RequestTracker("r").key != RequestTracker("r").key
