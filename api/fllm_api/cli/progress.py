"""Report start-up progress: bars on a terminal, log lines otherwise."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fllm.values import Progress

log = logging.getLogger("fllm.loading")

ProgressCallback = Callable[[Progress], None]


@contextmanager
def report_progress() -> Iterator[ProgressCallback]:
    """Yield a callback that reports progress. It may be called from any thread."""
    if sys.stderr.isatty():
        with _show_bars() as callback:
            yield callback
    else:
        yield _log_progress()


def _log_progress() -> ProgressCallback:
    """Return a callback that logs one line when a task starts."""
    started: set[str] = set()

    def on_progress(progress: Progress) -> None:
        if progress.task not in started:
            started.add(progress.task)
            log.info("%s", progress.task)

    return on_progress


@contextmanager
def _show_bars() -> Iterator[ProgressCallback]:
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.TaskProgressColumn())
    with rich.Progress(
        *columns, rich.TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as bars:
        tasks: dict[str, rich.TaskID] = {}
        starting = bars.add_task("Starting the engine", total=None)

        def on_progress(progress: Progress) -> None:
            bars.update(starting, visible=False)
            if progress.task not in tasks:
                tasks[progress.task] = bars.add_task(progress.task)
            bars.update(tasks[progress.task], completed=progress.done, total=progress.total or None)

        yield on_progress
