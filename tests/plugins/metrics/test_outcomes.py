"""Each request that ended is counted once, by what became of it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from fllm.trace import Trace
from fllm_metrics.outcomes import OUTCOMES, Outcomes


def ended(error: str | None, status: int | None, reason: str | None = None) -> Trace:
    trace = Trace("one")
    trace.status = status
    if reason is not None:
        trace.end(0, reason)
    trace.finish(error)
    return trace


def counted(trace: Trace) -> dict[str, float | None]:
    registry = CollectorRegistry()
    Outcomes(registry, "m").finished(trace)
    name = "furiosa_llm:request_outcome_total"
    return {each: registry.get_sample_value(name, {"model_name": "m", "outcome": each}) for each in OUTCOMES}


@pytest.mark.parametrize(
    ("trace", "outcome"),
    [
        (ended(None, 200, "stop"), "success"),
        (ended("max_tokens: not a number", 400), "refused"),
        (ended("the body is too large", 413), "refused"),
        (ended("too many requests", 429), "limited"),
        (ended("the engine starts", 503), "unavailable"),
        (ended("the server failed", 500), "error"),
        (ended("the engine died", 200, "error"), "error"),
        (ended("the client went away", 200, "abort"), "aborted"),
        (ended("the client went away", None), "aborted"),
    ],
)
def test_a_request_has_one_outcome(trace: Trace, outcome: str) -> None:
    assert counted(trace) == {**dict.fromkeys(OUTCOMES, 0), outcome: 1}
