"""A report as a table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby

from rich import box
from rich.table import Table

from fllm_api.bench.report import Report


def table(report: Report) -> Table:
    """A row for each server at each concurrency; the ratios follow those that they compare."""
    drawn = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    drawn.add_column("at\nonce", justify="right")
    drawn.add_column("server")
    for figure in report.figures:
        drawn.add_column(textwrap.fill(figure.title, 7), justify="right", no_wrap=True)
    ratios = {ratio.concurrency: ratio.ours_to_best_peer for ratio in report.ratios}
    for concurrency, results in groupby(report.results, lambda result: result.concurrency):
        for result in results:
            drawn.add_row(str(concurrency), result.server, *_numbers(report, result.medians))
        if concurrency in ratios:
            drawn.add_row("", "ratio", *_numbers(report, ratios[concurrency]), style="bold")
        drawn.add_section()
    return drawn


def remarks(report: Report) -> Iterator[str]:
    """What the figures are, and what makes them doubtful."""
    yield f"medians of {report.rounds} rounds" if report.rounds > 1 else "one round"
    if report.ratios:
        yield f"ratio: {report.servers[0].name} to the best of the others"
    for result in report.results:
        where = f"{result.server}, {result.concurrency} at once"
        failed = sum(result.failures.values())
        if result.short_answers:
            yield f"{where}: {result.short_answers} of {result.answers} answers ended early"
        for failure, times in result.failures.items():
            yield f"{where}: {times} of {failed + result.answers} requests failed: {failure}"


def _numbers(report: Report, values: dict[str, float]) -> Iterator[str]:
    return (_number(values.get(figure.name)) for figure in report.figures)


def _number(value: float | None) -> str:
    """Three digits, or all those before the point."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
