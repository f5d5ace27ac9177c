"""The metrics of a measurement: names, units, and which direction is better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from fllm_bench.response_reader import Completion


class Metric(Struct, frozen=True):
    """A measured quantity; its name ends with its unit."""

    name: str
    title: str
    """Column title, with the unit."""
    better: Literal["higher", "lower"] | None = "lower"
    """None for a metric that only describes the load."""


OUTPUT_RATE = Metric("output_tokens_per_s", "output tok/s", better="higher")
PROMPT_RATE = Metric("prompt_tokens_per_s", "prompt tok/s", better="higher")
PROMPT_TOKENS = Metric("prompt_tokens", "prompt tokens", better=None)
TTFT_P50 = Metric("ttft_p50_ms", "TTFT p50 ms")
TTFT_P95 = Metric("ttft_p95_ms", "TTFT p95 ms")
TTFT_P99 = Metric("ttft_p99_ms", "TTFT p99 ms")
TPOT_P50 = Metric("tpot_p50_ms", "TPOT p50 ms")
TPOT_P99 = Metric("tpot_p99_ms", "TPOT p99 ms")
E2E_P50 = Metric("e2e_p50_ms", "e2e p50 ms")
E2E_P99 = Metric("e2e_p99_ms", "e2e p99 ms")

LATENCIES = (TTFT_P50, TTFT_P99, TPOT_P50, TPOT_P99, E2E_P50, E2E_P99)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of at least one value, with linear interpolation as in numpy."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low, high = math.floor(position), math.ceil(position)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def percentiles_ms(
    seconds: Iterable[float | None], p50: Metric, high: Metric, percent: float = 99
) -> dict[str, float]:
    """Return the median and a high percentile in ms, ignoring None; return an empty dict without values."""
    values = [1000 * value for value in seconds if value is not None]
    if not values:
        return {}
    return {p50.name: percentile(values, 50), high.name: percentile(values, percent)}


def latencies(completions: Sequence[Completion]) -> dict[str, float]:
    """Return the `LATENCIES` of these completions."""
    return (
        percentiles_ms((each.first_token for each in completions), TTFT_P50, TTFT_P99)
        | percentiles_ms((each.per_token for each in completions), TPOT_P50, TPOT_P99)
        | percentiles_ms((each.end for each in completions), E2E_P50, E2E_P99)
    )
