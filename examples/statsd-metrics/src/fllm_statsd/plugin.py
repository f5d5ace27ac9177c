"""What this package offers: one collector, made from the environment once the model is loaded."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable

from fllm import Collector, MetricsContext, hookimpl


@hookimpl
def fllm_collectors(context: MetricsContext) -> Iterable[Collector]:
    """Raises for an address that can't be used: the server then warns, and serves without it."""
    from fllm_statsd.collector import StatsdCollector
    from fllm_statsd.settings import read_settings

    collector = StatsdCollector(read_settings(os.environ), context.model_name)
    atexit.register(collector.close)
    yield collector
