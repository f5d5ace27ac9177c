"""Each request that ended is counted once, by what became of it."""

from __future__ import annotations

import pytest

from fllm.pipeline.request_tracker import RequestTracker
from fllm_metrics.request_outcome import OUTCOMES, outcome


def ended(error: str | None, status: int | None, reason: str | None = None) -> RequestTracker:
    tracker = RequestTracker("one")
    tracker.status = status
    if reason is not None:
        tracker.end(0, reason)
    tracker.finish(error)
    return tracker


@pytest.mark.parametrize(
    ("tracker", "outcome_name"),
    [
        (ended(None, 200, "stop"), "success"),
        (ended("max_tokens: not a number", 400), "refused"),
        (ended("the body is too large", 413), "refused"),
        (ended("too many requests", 429), "limited"),
        (ended("the engine starts", 503), "unavailable"),
        (ended("the client disconnected", 499), "aborted"),
        (ended("the server failed", 500), "error"),
        (ended("the engine died", 200, "error"), "error"),
        (ended("the client went away", 200, "abort"), "aborted"),
        (ended("the client went away", None), "aborted"),
    ],
)
def test_a_request_has_one_outcome(tracker: RequestTracker, outcome_name: str) -> None:
    assert outcome(tracker) == outcome_name
    assert outcome_name in OUTCOMES
