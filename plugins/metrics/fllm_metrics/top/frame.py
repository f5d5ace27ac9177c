"""One frame: what is drawn of a server; it fits into 80 columns and 24 lines."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from fllm_metrics.top.client import Look
from fllm_metrics.top.history import History, Measure, Window
from fllm_metrics.top.metrics_page import Histogram
from fllm_metrics.top.sparkline import gauge, sparkline
from fllm_metrics.top.units import bytes_, number, percent, seconds, span

RATES = 10.0
"""Seconds that rates are taken over."""
TIMES = 60.0
"""Seconds whose samples make the quantiles."""
LABEL, VALUE = 16, 11
FULL = 0.9
"""A cache above this is drawn in red."""

GAUGES = (("running", "num_requests_running"), ("waiting", "num_requests_waiting"))
REQUESTS = (("answered", "request_success_total"), ("failed", "request_failure_total"))
TOKENS = (("prompt", "prompt_tokens_total"), ("generated", "generation_tokens_total"))
LATENCIES = (
    ("in the queue", "request_queue_time_seconds"),
    ("first token", "time_to_first_token_seconds"),
    ("between tokens", "inter_token_latency_seconds"),
    ("whole answer", "e2e_request_latency_seconds"),
)


class Frame:
    """A server at one moment, as wide as the console."""

    def __init__(self, url: str, look: Look, history: History, interval: float) -> None:
        self._url = url
        self._look = look
        self._history = history
        self._interval = interval
        self._now = history.window(RATES) if look.page else None
        self._minute = history.window(TIMES) if look.page else None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        yield self._title(width)
        yield from self._about()
        yield Text()
        yield self._work(width - LABEL - VALUE - 12)
        yield Text()
        yield self._side_by_side()

    def _title(self, width: int) -> Text:
        clock = time.strftime("%H:%M:%S")
        title = f"furiosa-llm top  {self._url}"
        return Text(f"{title[: width - 10]:{width - len(clock)}}{clock}", style="bold", no_wrap=True)

    def _about(self) -> Iterator[Text]:
        about = self._look.about
        first = f"{about.model}  context {about.context}  {about.backend}  {about.version}" if about else ""
        yield Text(first, no_wrap=True, overflow="ellipsis")
        trouble = self._look.trouble
        state = Text(no_wrap=True, overflow="ellipsis")
        state.append("● ", "red" if trouble else "green").append(trouble or "ready", "red" if trouble else "")
        if self._now:
            state.append("  " + "  ".join(_process(self._now)), "dim")
        yield state

    def _work(self, cells: int) -> RenderableType:
        table = _table(LABEL, VALUE, cells, 9)
        table.columns[2].justify = "left"
        table.add_row("Requests", "", Text("last 5 minutes", "dim"), Text("highest", "dim"), style="bold")
        for label, name in GAUGES:
            self._row(table, label, _value(name), "", cells)
        for label, name in REQUESTS:
            style = "red" if name == "request_failure_total" else ""
            self._row(table, label, _rate(name), "/s", cells, style)
        table.add_row()
        table.add_row("Tokens", style="bold")
        for label, name in TOKENS:
            self._row(table, label, _rate(name), "/s", cells)
        return table

    def _row(
        self, table: Table, label: str, measure: Measure, unit: str, cells: int, alarm: str = ""
    ) -> None:
        trail = [*self._history.trail(measure, cells, self._interval)]
        known = [value for value in trail if value is not None]
        value = measure(self._now) if self._now else None
        text = Text("-" if value is None else number(value) + unit, alarm if value else "")
        highest = Text(number(max(known)) + unit if known else "", "dim")
        table.add_row(f"  {label}", text, Text(sparkline(trail), "cyan"), highest)

    def _side_by_side(self) -> RenderableType:
        both = Table.grid(padding=(0, 4, 0, 0))
        both.add_row(self._latency(), self._cache())
        return both

    def _latency(self) -> RenderableType:
        table = _table(LABEL, 9, 9)
        table.add_row("Seconds", Text("p50", "dim"), Text("p95", "dim"), style="bold")
        for label, name in LATENCIES:
            histogram = self._minute.histogram(name) if self._minute else Histogram()
            table.add_row(f"  {label}", _quantile(histogram, 0.5), _quantile(histogram, 0.95))
        return table

    def _cache(self) -> RenderableType:
        table = _table(LABEL, 7, None)
        table.add_row("Cache", style="bold")
        now = self._now
        usage = now.value("kv_cache_usage") if now else None
        bar = Text("" if usage is None else gauge(usage, 10), "red" if (usage or 0) > FULL else "green")
        table.add_row("  KV blocks", percent(usage), bar)
        for label, part, whole in (
            ("prefix found", "prefix_cache_hits_total", "prefix_cache_queries_total"),
            ("guessed right", "spec_decode_num_accepted_tokens_total", "spec_decode_num_draft_tokens_total"),
        ):
            table.add_row(f"  {label}", percent(self._minute.share(part, whole) if self._minute else None))
        preempted = self._minute.increase("preemptions_total") if self._minute else None
        table.add_row("  preempted", "-" if preempted is None else number(preempted))
        return table


def lines(frame: Frame, hint: str) -> Group:
    """A frame, and below it what can be done."""
    return Group(frame, Text(), Text(hint, "dim"))


def _table(*widths: int | None) -> Table:
    """The first column and those without a width stand left, figures right."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for index, width in enumerate(widths):
        left = width is None or not index
        table.add_column(width=width, justify="left" if left else "right", no_wrap=True)
    return table


def _value(name: str) -> Measure:
    return lambda window: window.value(name)


def _rate(name: str) -> Measure:
    return lambda window: window.rate(name)


def _process(window: Window) -> Iterator[str]:
    """The API's process; the engine's is another."""
    if started := window.value("process_start_time_seconds"):
        yield f"up {span(time.time() - started)}"
    yield f"API process: {bytes_(window.value('process_resident_memory_bytes'))}"
    yield f"cpu {window.rate('process_cpu_seconds_total'):.0%}"
    yield f"{window.value('process_open_fds'):.0f} files"


def _quantile(histogram: Histogram, share: float) -> str:
    """Beyond the last bound nobody knows how far."""
    value = histogram.quantile(share)
    if value is None:
        return "-"
    return f"> {seconds(histogram.bounds[-2])}" if math.isinf(value) else seconds(value)
