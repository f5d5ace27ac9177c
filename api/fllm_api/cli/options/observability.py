"""Options of logs, metrics and traces."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import rich_click as click

from fllm_api.cli.param_types import HttpUrl, Pattern, Size

LOG_FORMATS = ("console", "json")
METRICS_COMPAT = ("vllm",)
LOG_LEVELS = ("debug", "info", "warning", "error")

_observability = partial(click.RichOption, panel="Observability")

OBSERVABILITY_OPTIONS = [
    _observability(["--enable-metrics"], is_flag=True, help="Serve /metrics for Prometheus."),
    _observability(["--disable-log-stats"], is_flag=True, help="Do not log statistics every ten seconds."),
    _observability(
        ["--metrics-compat"],
        type=click.Choice(METRICS_COMPAT),
        multiple=True,
        help="Also export metrics under the names that this server uses.",
    ),
    _observability(
        ["--otlp-endpoint"],
        type=HttpUrl(),
        help="Send traces to this endpoint, such as http://localhost:4318.",
    ),
    _observability(
        ["--log-requests/--no-log-requests"],
        default=True,
        help="Log a line for each request: status, tokens, times.",
    ),
    _observability(
        ["--log-format"], type=click.Choice(LOG_FORMATS), default="console", help="Format of log lines."
    ),
    _observability(
        ["--enable-payload-logging"], is_flag=True, help="Print every request and response to stdout."
    ),
    _observability(
        ["--watchdog/--no-watchdog"],
        default=True,
        help="Interrupt a plugin that blocks the server for 5 s, unless a debugger has stopped it.",
    ),
    _observability(
        ["--record"],
        type=click.Path(path_type=Path),
        show_default="none",
        help="File to which to append what the model writes, as samples for parsers. It may be confidential.",
    ),
    _observability(
        ["--record-size"], type=Size(), default="100MiB", help="Size from which on --record adds nothing."
    ),
    _observability(
        ["--record-redact"],
        type=Pattern(),
        multiple=True,
        help="Regular expression of what --record replaces by [redacted].",
    ),
    _observability(
        ["--log-level"], type=click.Choice(LOG_LEVELS), default="info", help="Lowest level to log."
    ),
]
