"""A page is read back to the numbers that were written, and its histograms to quantiles."""

from __future__ import annotations

import math

import pytest

from fllm_metrics.top.metrics_page import Histogram, parse_page

PAGE = """\
# HELP furiosa_llm:request_failure_total Requests that failed
# TYPE furiosa_llm:request_failure_total counter
furiosa_llm:request_failure_total{model_name="m",reason="a"} 2.0
furiosa_llm:request_failure_total{model_name="m",reason="b"} 3.0
# HELP process_open_fds Number of open file descriptors.
# TYPE process_open_fds gauge
process_open_fds 19.0
# HELP furiosa_llm:time_to_first_token_seconds From arrival to the first token
# TYPE furiosa_llm:time_to_first_token_seconds histogram
furiosa_llm:time_to_first_token_seconds_bucket{le="0.1",model_name="m"} 5.0
furiosa_llm:time_to_first_token_seconds_bucket{le="1.0",model_name="m"} 15.0
furiosa_llm:time_to_first_token_seconds_bucket{le="+Inf",model_name="m"} 20.0
furiosa_llm:time_to_first_token_seconds_count{model_name="m"} 20.0
furiosa_llm:time_to_first_token_seconds_sum{model_name="m"} 12.5
"""


def test_ours_lose_their_prefix_and_series_are_added() -> None:
    values = parse_page(PAGE).values
    assert (values["request_failure_total"], values["process_open_fds"]) == (5, 19)


def test_buckets_become_a_histogram() -> None:
    histogram = parse_page(PAGE).histograms["time_to_first_token_seconds"]
    assert histogram == Histogram((0.1, 1.0, math.inf), (5, 15, 20))


def test_other_text_is_an_error() -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_page("<html>\n<body>hello there</body>")


@pytest.mark.parametrize(
    ("share", "value"), [(0.25, 0.1), (0.5, 0.55), (0.75, 1.0), (0.05, 0.02), (0.95, math.inf)]
)
def test_a_quantile_lies_on_a_line_within_its_bucket(share: float, value: float) -> None:
    histogram = Histogram((0.1, 1.0, math.inf), (5, 15, 20))
    assert histogram.quantile(share) == pytest.approx(value)


def test_empty_buckets_are_skipped() -> None:
    histogram = Histogram((1.0, 2.0, 3.0, math.inf), (0, 0, 4, 4))
    assert [histogram.quantile(share) for share in (0.0, 0.5, 1.0)] == [2.0, 2.5, 3.0]


def test_no_samples_have_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


def test_the_samples_since_are_the_difference() -> None:
    before, now = Histogram((1.0, math.inf), (2, 3)), Histogram((1.0, math.inf), (2, 7))
    assert now.since(before) == Histogram((1.0, math.inf), (0, 4))


def test_a_histogram_that_restarted_is_taken_whole() -> None:
    before, now = Histogram((1.0, math.inf), (2, 30)), Histogram((1.0, math.inf), (1, 4))
    assert now.since(before) == now


def test_models_that_are_loaded_on_demand_have_their_own_values() -> None:
    page = parse_page(
        PAGE
        + """\
# HELP furiosa_llm:model_loaded 1 if the model is loaded, else 0
# TYPE furiosa_llm:model_loaded gauge
furiosa_llm:model_loaded{model_name="a"} 1.0
furiosa_llm:model_loaded{model_name="b"} 0.0
"""
    )
    assert page.models == {"a": {"model_loaded": 1}, "b": {"model_loaded": 0}}
    assert parse_page(PAGE).models == {}


def test_series_with_an_outcome_are_also_there_by_it() -> None:
    page = parse_page(
        'furiosa_llm:request_outcome_total{model_name="m",outcome="limited"} 2.0\n'
        'furiosa_llm:request_outcome_total{model_name="n",outcome="limited"} 1.0\n'
        'furiosa_llm:request_outcome_total{model_name="n",outcome="error"} 4.0\n'
    )
    assert page.values["request_outcome_total:limited"] == 3
    assert page.values["request_outcome_total"] == 7
