"""The plugin's hooks: one collector, created from environment variables after the model has loaded."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable

from fllm import Collector, MetricsContext, hookimpl


@hookimpl
def fllm_collectors(context: MetricsContext) -> Iterable[Collector]:
    """Yield the collector. Raise an error for an invalid address: the server warns and runs without it."""
    from fllm_statsd.collector import StatsdCollector
    from fllm_statsd.settings import read_settings

    collector = StatsdCollector(read_settings(os.environ), context.model_name)
    atexit.register(collector.close)
    yield collector
