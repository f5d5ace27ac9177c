"""Render one frame, which fits into 80 columns and 24 lines."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from fllm_metrics.top.client import Snapshot
from fllm_metrics.top.history import History, Measure, Window
from fllm_metrics.top.metrics_page import Histogram
from fllm_metrics.top.sparkline import gauge, sparkline
from fllm_metrics.top.units import bytes_, duration, number, percent, seconds

RATE_SECONDS = 10.0
"""Window of the rates."""
QUANTILE_SECONDS = 60.0
"""Window of the quantiles."""
LABEL_WIDTH, VALUE_WIDTH = 16, 11
MAX_PLUGINS = 5
"""Maximum number of parts of plugins that are shown."""
FULL_CACHE = 0.9
"""Share of used KV blocks above which the gauge is red."""

Replicas = Mapping[str, Mapping[str, float]]

GAUGES = (("running", "num_requests_running"), ("waiting", "num_requests_waiting"))
REQUESTS = (
    ("succeeded", ("success",)),
    ("refused", ("refused", "limited")),
    ("failed", ("error", "unavailable", "aborted")),
)
"""Labels of finished requests, with their outcomes. A request above a limit has not failed."""
TOKENS = (("prompt", "prompt_tokens_total"), ("generated", "generation_tokens_total"))
LATENCIES = (
    ("in the queue", "request_queue_time_seconds"),
    ("first token", "time_to_first_token_seconds"),
    ("between tokens", "inter_token_latency_seconds"),
    ("whole response", "e2e_request_latency_seconds"),
)


class Frame:
    """Draws a snapshot of the server, as wide as the console."""

    def __init__(self, url: str, snapshot: Snapshot, history: History, interval: float) -> None:
        self._url = url
        self._snapshot = snapshot
        self._history = history
        self._interval = interval
        self._now = history.window(RATE_SECONDS) if snapshot.page else None
        self._minute = history.window(QUANTILE_SECONDS) if snapshot.page else None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        yield self._title(width)
        yield from self._info()
        yield Text()
        yield self._work(width - LABEL_WIDTH - VALUE_WIDTH - 12)
        yield Text()
        yield self._side_by_side()
        if self._now and (replicas := self._now.now.replicas):
            yield Text()
            yield _replicas(replicas, self._now.before.replicas)
        if self._now and (models := self._now.now.models):
            yield Text()
            yield _models(models)
        if self._now and (plugins := _busiest(self._now)):
            yield Text()
            yield _plugins(plugins, self._now)

    def _title(self, width: int) -> Text:
        clock = time.strftime("%H:%M:%S")
        title = f"furiosa-llm top  {self._url}"
        return Text(f"{title[: width - 10]:{width - len(clock)}}{clock}", style="bold", no_wrap=True)

    def _info(self) -> Iterator[Text]:
        info = self._snapshot.info
        first = f"{info.model}  context {info.context}  {info.backend}  {info.version}" if info else ""
        yield Text(first, no_wrap=True, overflow="ellipsis")
        problem = self._snapshot.problem
        state = Text(no_wrap=True, overflow="ellipsis")
        state.append("● ", "red" if problem else "green").append(problem or "ready", "red" if problem else "")
        if self._now:
            state.append("  " + "  ".join(_process(self._now)), "dim")
        yield state

    def _work(self, cells: int) -> RenderableType:
        table = _table(LABEL_WIDTH, VALUE_WIDTH, cells, 9)
        table.columns[2].justify = "left"
        table.add_row("Requests", "", Text("last 5 minutes", "dim"), Text("highest", "dim"), style="bold")
        for label, name in GAUGES:
            self._row(table, label, _value(name), "", cells)
        for label, outcomes in REQUESTS:
            names = [f"request_outcome_total:{outcome}" for outcome in outcomes]
            self._row(table, label, _rate(*names), "/s", cells, "red" if label == "failed" else "")
        table.add_row()
        table.add_row("Tokens", style="bold")
        for label, name in TOKENS:
            self._row(table, label, _rate(name), "/s", cells)
        return table

    def _row(
        self, table: Table, label: str, measure: Measure, unit: str, cells: int, alarm: str = ""
    ) -> None:
        series = [*self._history.series(measure, cells, self._interval)]
        known = [value for value in series if value is not None]
        value = measure(self._now) if self._now else None
        text = Text("-" if value is None else number(value) + unit, alarm if value else "")
        highest = Text(number(max(known)) + unit if known else "", "dim")
        table.add_row(f"  {label}", text, Text(sparkline(series), "cyan"), highest)

    def _side_by_side(self) -> RenderableType:
        both = Table.grid(padding=(0, 4, 0, 0))
        both.add_row(self._latency(), self._cache())
        return both

    def _latency(self) -> RenderableType:
        table = _table(LABEL_WIDTH, 9, 9)
        table.add_row("Seconds", Text("p50", "dim"), Text("p95", "dim"), style="bold")
        for label, name in LATENCIES:
            histogram = self._minute.histogram(name) if self._minute else Histogram()
            table.add_row(f"  {label}", _quantile(histogram, 0.5), _quantile(histogram, 0.95))
        return table

    def _cache(self) -> RenderableType:
        table = _table(LABEL_WIDTH, 7, None)
        table.add_row("Cache", style="bold")
        now = self._now
        usage = now.value("kv_cache_usage") if now else None
        bar = Text("" if usage is None else gauge(usage, 10), "red" if (usage or 0) > FULL_CACHE else "green")
        table.add_row("  KV blocks", percent(usage), bar)
        for label, part, whole in (
            ("prefix hits", "prefix_cache_hits_total", "prefix_cache_queries_total"),
            ("draft hits", "spec_decode_num_accepted_tokens_total", "spec_decode_num_draft_tokens_total"),
        ):
            table.add_row(f"  {label}", percent(self._minute.share(part, whole) if self._minute else None))
        preempted = self._minute.increase("preemptions_total") if self._minute else None
        table.add_row("  preempted", "-" if preempted is None else number(preempted))
        return table


def with_hint(frame: Frame, hint: str) -> Group:
    """Return the frame with a hint below it."""
    return Group(frame, Text(), Text(hint, "dim"))


def _table(*widths: int | None) -> Table:
    """Return a table; the first column and columns without a width are left-aligned, others right-aligned."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for index, width in enumerate(widths):
        left = width is None or not index
        table.add_column(width=width, justify="left" if left else "right", no_wrap=True)
    return table


def _replicas(now: Replicas, before: Replicas) -> RenderableType:
    """Return a line for each replica; the prefix hits are those of the last seconds."""
    table = _table(LABEL_WIDTH, 9, 9, 9, 9, 9, 9)
    titles = ("state", "requests", "queued", "KV", "hits", "restarts")
    table.add_row("Replica", *(Text(title, "dim") for title in titles), style="bold")
    for name, values in now.items():
        state = "ready" if values.get("ready") else "drained" if values.get("up") else "down"
        earlier = before.get(name, {})
        hits, queries = (
            values.get(key, 0.0) - earlier.get(key, 0.0)
            for key in ("prefix_cache_hits_total", "prefix_cache_queries_total")
        )
        table.add_row(
            f"  {name}",
            Text(state, "" if state == "ready" else "red"),
            number(values.get("requests", 0.0)),
            number(values.get("queued_tokens", 0.0)),
            percent(values.get("kv_cache_usage")),
            percent(hits / queries if queries > 0 else None),
            number(values.get("restarts_total", 0.0)),
        )
    return table


def _models(models: Mapping[str, Mapping[str, float]]) -> RenderableType:
    """Return a line for each model that is loaded on demand."""
    table = _table(LABEL_WIDTH + 8, 9, 9, 9, 9, 9)
    titles = ("state", "memory", "requests", "waiting", "loads")
    table.add_row("Model", *(Text(title, "dim") for title in titles), style="bold")
    for name, values in models.items():
        state = next((each for each in ("loaded", "failed") if values.get(f"model_{each}")), "unloaded")
        table.add_row(
            f"  {name}",
            Text(state, "red" if state == "failed" else ""),
            bytes_(values.get("model_memory_bytes", 0.0)),
            number(values.get("model_requests", 0.0)),
            number(values.get("model_waiting_requests", 0.0)),
            number(values.get("model_loads_total", 0.0)),
        )
    return table


def _busiest(window: Window) -> list[str]:
    """Return the parts of plugins that were used in these seconds, or have failed, most time first."""
    used = {
        name: _increase(window, name, "seconds_total")
        for name, values in window.now.plugins.items()
        if _increase(window, name, "calls_total") or values.get("errors_total")
    }
    return sorted(used, key=used.__getitem__, reverse=True)[:MAX_PLUGINS]


def _increase(window: Window, part: str, name: str) -> float:
    now, before = (page.plugins.get(part, {}).get(name, 0.0) for page in (window.now, window.before))
    return max(now - before, 0.0)


def _plugins(names: Sequence[str], window: Window) -> RenderableType:
    """Return a line for each part: its calls, its share of the time, and its errors since the start."""
    table = _table(LABEL_WIDTH + 20, 9, 9, 9)
    seconds_ = window.seconds or 1.0
    titles = ("calls/s", "time", "errors")
    table.add_row("Plugins", *(Text(title, "dim") for title in titles), style="bold")
    for name in names:
        errors = window.now.plugins[name].get("errors_total", 0.0)
        table.add_row(
            f"  {name}",
            number(_increase(window, name, "calls_total") / seconds_),
            percent(_increase(window, name, "seconds_total") / seconds_),
            Text(number(errors), "red" if errors else ""),
        )
    return table


def _value(name: str) -> Measure:
    return lambda window: window.value(name)


def _rate(*names: str) -> Measure:
    return lambda window: sum(map(window.rate, names))


def _process(window: Window) -> Iterator[str]:
    """Yield facts about the API process, which is not the engine process."""
    if started := window.value("process_start_time_seconds"):
        yield f"up {duration(time.time() - started)}"
    yield f"API process: {bytes_(window.value('process_resident_memory_bytes'))}"
    yield f"cpu {window.rate('process_cpu_seconds_total'):.0%}"
    yield f"{window.value('process_open_fds'):.0f} files"


def _quantile(histogram: Histogram, share: float) -> str:
    """Format a quantile; above the last finite bound, only the bound is known."""
    value = histogram.quantile(share)
    if value is None:
        return "-"
    return f"> {seconds(histogram.bounds[-2])}" if math.isinf(value) else seconds(value)
