"""Format a report as a table with notes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby

from rich import box
from rich.table import Table

from fllm_bench.report import Report


def format_table(report: Report) -> Table:
    """Return a table with a row per target and concurrency, and a row of ratios after those it compares."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("at\nonce", justify="right")
    table.add_column("server")
    for metric in report.metrics:
        table.add_column(textwrap.fill(metric.title, 7), justify="right", no_wrap=True)
    ratios = {ratio.concurrency: ratio.ours_to_best_peer for ratio in report.ratios}
    for concurrency, results in groupby(report.results, lambda result: result.concurrency):
        for result in results:
            table.add_row(str(concurrency), result.server, *_cells(report, result.medians))
        if concurrency in ratios:
            table.add_row("", "ratio", *_cells(report, ratios[concurrency]), style="bold")
        table.add_section()
    return table


def notes(report: Report) -> Iterator[str]:
    """Yield what the numbers are, and what makes them unreliable."""
    yield f"medians of {report.rounds} rounds" if report.rounds > 1 else "one round"
    if report.ratios:
        yield f"ratio: {report.targets[0].name} to the best of the others"
    for result in report.results:
        where = f"{result.server}, {result.concurrency} at once"
        failed = sum(result.failures.values())
        if result.short_completions:
            yield f"{where}: {result.short_completions} of {result.completions} completions ended early"
        for failure, count in result.failures.items():
            yield f"{where}: {count} of {failed + result.completions} requests failed: {failure}"


def _cells(report: Report, values: dict[str, float]) -> Iterator[str]:
    return (_format(values.get(metric.name)) for metric in report.metrics)


def _format(value: float | None) -> str:
    """Return a number with three significant digits, or all digits before the decimal point."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
