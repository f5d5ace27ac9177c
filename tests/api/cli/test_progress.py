"""Start-up progress: lines in a log, bars on a terminal."""

from __future__ import annotations

import io
import logging
import sys
import threading

import pytest

from fllm import Progress
from fllm_api.cli.progress import report_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_one_line_for_each_task(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), report_progress() as on_progress:
        for done in range(3):
            on_progress(Progress("Loading weights", done, 2))
        on_progress(Progress("Warming up", 0, 0))
    assert [record.message for record in caplog.records] == ["Loading weights", "Warming up"]


def test_a_terminal_gets_a_bar_for_each_task_from_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with report_progress() as on_progress:
        assert "Starting the engine" in terminal.getvalue()
        other = threading.Thread(target=on_progress, args=(Progress("Loading weights", 1, 2),))
        other.start()
        other.join()
        on_progress(Progress("Warming up", 0, 0))
    shown = terminal.getvalue()
    assert "Loading weights" in shown
    assert "50%" in shown
    assert "Warming up" in shown
