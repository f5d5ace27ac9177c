"""What is measured: names, units, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from fllm_api.bench.answer import Answer


class Figure(Struct, frozen=True):
    """A quantity; its name ends with its unit."""

    name: str
    title: str
    """For people, with the unit."""
    better: Literal["higher", "lower"] | None = "lower"
    """None for what only describes the load."""


OUTPUT_RATE = Figure("output_tokens_per_s", "output tok/s", better="higher")
PROMPT_RATE = Figure("prompt_tokens_per_s", "prompt tok/s", better="higher")
PROMPT_TOKENS = Figure("prompt_tokens", "prompt tokens", better=None)
TTFT_P50 = Figure("ttft_p50_ms", "TTFT p50 ms")
TTFT_P99 = Figure("ttft_p99_ms", "TTFT p99 ms")
TPOT_P50 = Figure("tpot_p50_ms", "TPOT p50 ms")
TPOT_P99 = Figure("tpot_p99_ms", "TPOT p99 ms")
END_P50 = Figure("e2e_p50_ms", "e2e p50 ms")
END_P99 = Figure("e2e_p99_ms", "e2e p99 ms")

LATENCIES = (TTFT_P50, TTFT_P99, TPOT_P50, TPOT_P99, END_P50, END_P99)


def percentile(values: Sequence[float], percent: float) -> float:
    """Of at least one value; between two neighbours it is interpolated, as numpy does it."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def quantiles(seconds: Iterable[float | None], p50: Figure, p99: Figure) -> dict[str, float]:
    """Both figures in ms; nothing where nothing was measured."""
    values = [1000 * value for value in seconds if value is not None]
    if not values:
        return {}
    return {p50.name: percentile(values, 50), p99.name: percentile(values, 99)}


def latencies(answers: Sequence[Answer]) -> dict[str, float]:
    """`LATENCIES` of these answers."""
    return (
        quantiles((each.first_token for each in answers), TTFT_P50, TTFT_P99)
        | quantiles((each.per_token for each in answers), TPOT_P50, TPOT_P99)
        | quantiles((each.end for each in answers), END_P50, END_P99)
    )
