"""Percentiles, and the values that they summarize."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_bench.metrics import LATENCIES, TTFT_P50, TTFT_P99, latencies, percentile, percentiles_ms
from fllm_bench.response_reader import Completion

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)


@given(VALUES, st.floats(0, 100))
def test_percentiles_are_numpys(values: list[float], percent: float) -> None:
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent), rel=1e-9, abs=1e-9)


def test_quantiles_are_in_ms_and_leave_out_what_was_not_measured() -> None:
    assert percentiles_ms([0.1, None, 0.2], TTFT_P50, TTFT_P99) == pytest.approx(
        {"ttft_p50_ms": 150, "ttft_p99_ms": 199}
    )
    assert percentiles_ms([None], TTFT_P50, TTFT_P99) == {}


def test_latencies_of_completions() -> None:
    completion = Completion(first_token=0.1, last_token=0.5, end=0.6, output_tokens=5, prompt_tokens=1)
    measured = latencies([completion])
    assert list(measured) == [metric.name for metric in LATENCIES]
    assert list(measured.values()) == pytest.approx([100, 100, 100, 100, 600, 600])


def test_completions_of_one_token_have_no_time_between_tokens() -> None:
    completion = Completion(first_token=0.1, last_token=0.1, end=0.1, output_tokens=1, prompt_tokens=1)
    assert set(latencies([completion])) == {"ttft_p50_ms", "ttft_p99_ms", "e2e_p50_ms", "e2e_p99_ms"}
    assert latencies([]) == {}
