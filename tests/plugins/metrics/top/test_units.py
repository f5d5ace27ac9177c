"""Numbers and bars fit their columns."""

from __future__ import annotations

import pytest

from fllm_metrics.top.sparkline import gauge, sparkline
from fllm_metrics.top.units import bytes_, duration, number, percent, seconds


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (number(0), "0"),
        (number(0.58), "0.58"),
        (number(4.25), "4.2"),
        (number(1037.4), "1,037"),
        (seconds(0.0041), "4.1 ms"),
        (seconds(0.0997), "100 ms"),
        (seconds(0.35), "350 ms"),
        (seconds(0.9997), "1.0 s"),
        (seconds(9.97), "10 s"),
        (seconds(75.2), "75 s"),
        (percent(None), "-"),
        (percent(0.345), "34%"),
        (bytes_(93_523_968), "94 MB"),
        (bytes_(1_780_285_440), "1.8 GB"),
        (duration(0.2), "0 s"),
        (duration(59.7), "1 min 0 s"),
        (duration(3 * 86400 + 4 * 3600 + 59), "3 d 4 h"),
    ],
)
def test_numbers_are_short(text: str, wanted: str) -> None:
    assert text == wanted


def test_bars_rise_to_the_highest() -> None:
    assert sparkline([None, 0, 1, 4, 8]) == " ▁▂▅█"


def test_nothing_at_all_is_a_flat_line() -> None:
    assert sparkline([0, 0]) == "▁▁"


@pytest.mark.parametrize(("share", "bar"), [(-1, "░░░░"), (0.5, "██░░"), (1, "████"), (7, "████")])
def test_a_gauge_stays_within_its_ends(share: float, bar: str) -> None:
    assert gauge(share, 4) == bar
