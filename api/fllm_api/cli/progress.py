"""How far the start has come: bars on a terminal, lines in a log."""

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
    """What to tell of progress, from any thread."""
    if sys.stderr.isatty():
        with _show_bars() as tell:
            yield tell
    else:
        yield _log_progress()


def _log_progress() -> ProgressCallback:
    """One line for each task, when it begins."""
    begun: set[str] = set()

    def tell(progress: Progress) -> None:
        if progress.task not in begun:
            begun.add(progress.task)
            log.info("%s", progress.task)

    return tell


@contextmanager
def _show_bars() -> Iterator[ProgressCallback]:
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.TaskProgressColumn())
    with rich.Progress(
        *columns, rich.TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as bars:
        tasks: dict[str, rich.TaskID] = {}

        def tell(progress: Progress) -> None:
            if progress.task not in tasks:
                tasks[progress.task] = bars.add_task(progress.task)
            bars.update(tasks[progress.task], completed=progress.done, total=progress.total or None)

        yield tell
