"""Collect the tests of faults as rows of docs/reliability.md (``--write-page FILE``; ``make faults``)."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

import pytest
from support.fault_table import Row, Seen, page

SEEN = pytest.StashKey[Seen]()
ROWS = pytest.StashKey[dict[str, Row]]()
STARTED = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-page", type=Path, metavar="FILE", help="write the page of faults to FILE")


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[STARTED] = time.monotonic()


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Seen:
    """Return the recorder that a test calls with what happened."""
    return request.node.stash.setdefault(SEEN, Seen())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Fail a test of a fault that did not record what happened."""
    yield
    if item.get_closest_marker("fault") and not item.stash.get(SEEN, Seen()).sentences:
        pytest.fail("a test with @fault must call seen(...) with what happened")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    marker = item.get_closest_marker("fault")
    if marker is not None and (call.when == "call" or not report.passed):
        area, what, must = marker.args
        rows = item.config.stash.setdefault(ROWS, {})
        rows[item.nodeid] = Row(area, what, must, _happened(item, report))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    file: Path | None = config.getoption("--write-page", None)
    if file is not None:
        minutes = (time.monotonic() - config.stash.get(STARTED, time.monotonic())) / 60
        file.write_text(page(config.stash.get(ROWS, {}).values(), minutes=minutes), "utf-8")


def _happened(item: pytest.Item, report: pytest.TestReport) -> str:
    if report.passed:
        return str(item.stash[SEEN])
    if report.skipped:
        return f"not run: {report.longrepr[2] if isinstance(report.longrepr, tuple) else 'skipped'}"
    return "FAILED"
