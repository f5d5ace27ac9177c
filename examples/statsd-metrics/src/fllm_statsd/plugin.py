"""The plugin's options and hooks: one collector, created after the model has loaded."""

from __future__ import annotations

import atexit
from collections.abc import Iterable

from fllm import Collector, MetricsContext, hookimpl
from fllm_statsd.options import StatsdOptions

FLLM_OPTIONS = StatsdOptions


@hookimpl
def fllm_collectors(context: MetricsContext) -> Iterable[Collector]:
    """Yield the collector. Raise an error for an unknown host: the server warns and runs without it."""
    from fllm_statsd.collector import StatsdCollector

    collector = StatsdCollector(context.options, context.model_name)
    atexit.register(collector.close)
    yield collector
