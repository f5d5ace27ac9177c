"""Rates, shares and series over the last minutes."""

from __future__ import annotations

import pytest

from fllm_metrics.top.client import Snapshot
from fllm_metrics.top.history import HISTORY_SECONDS, History, Window
from fllm_metrics.top.metrics_page import Page


def history_of(*snapshots: tuple[float, float | None]) -> History:
    """Return snapshots of a counter ``n``: time and value; None if the server was unreachable."""
    history = History()
    for at, value in snapshots:
        page = None if value is None else Page({"n": value}, {})
        history.add(Snapshot(at=at, page=page))
    return history


def rate(history: History, seconds: float) -> float:
    window = history.window(seconds)
    assert window is not None
    return window.rate("n")


def test_one_snapshot_is_not_a_window() -> None:
    assert history_of((0, 5)).window(10) is None


def test_a_rate_is_over_the_window_alone() -> None:
    history = history_of((0, 0), (10, 1000), (20, 1020), (30, 1040))
    assert rate(history, 20) == 2.0


def test_a_rate_is_over_what_is_known_where_that_is_less() -> None:
    assert rate(history_of((0, 0), (4, 8)), 20) == 2.0


def test_a_counter_that_fell_restarted() -> None:
    assert rate(history_of((0, 500), (10, 30)), 10) == 3.0


def test_snapshots_without_a_server_are_skipped() -> None:
    assert rate(history_of((0, 0), (5, None), (10, 20)), 10) == 2.0


def test_what_is_too_old_is_forgotten() -> None:
    assert (
        rate(history_of((0, 0), (HISTORY_SECONDS + 1, 10), (HISTORY_SECONDS + 2, 12)), HISTORY_SECONDS) == 2.0
    )


def test_a_share_of_nothing_is_nothing() -> None:
    window = Window(Page({"hit": 1, "total": 4}, {}), Page({"hit": 1, "total": 4}, {}), 1.0)
    assert window.share("hit", "total") is None


def test_a_share_is_of_what_came() -> None:
    window = Window(Page({"hit": 1, "total": 4}, {}), Page({"hit": 4, "total": 8}, {}), 1.0)
    assert window.share("hit", "total") == 0.75


def test_a_series_has_a_gap_without_a_server() -> None:
    history = history_of((0, 0), (100, 100), (200, None), (300, 500))
    assert [*history.series(lambda window: window.rate("n"), 4, 1.0)] == [1.0, None, None, None]


def test_a_series_does_not_move_within_a_cell() -> None:
    snapshots = [(float(at), float(at) * 3) for at in range(0, 290, 10)]
    before = [*history_of(*snapshots).series(lambda window: window.rate("n"), 10, 1.0)]
    after = [*history_of(*snapshots, (295, 885)).series(lambda window: window.rate("n"), 10, 1.0)]
    assert before == after == [None, *[pytest.approx(3.0)] * 9]
