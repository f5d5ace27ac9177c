"""Register the built-in collectors and ``furiosa-llm top``."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import Collector, Entry, MetricsContext, hookimpl


@hookimpl
def fllm_collectors(context: MetricsContext) -> Iterable[Collector]:
    """Yield the collectors that the configuration enables; prometheus_client is imported only for metrics."""
    if context.config.enabled:
        from fllm_metrics.prometheus import PrometheusCollector

        yield PrometheusCollector(context)
    if context.config.log_stats:
        from fllm_metrics.stats_log import StatsLog

        yield StatsLog()
    if context.config.log_requests:
        from fllm_metrics.access_log import AccessLog

        yield AccessLog()


@hookimpl
def fllm_commands() -> Iterable[Entry]:
    """Yield the ``top`` command."""
    yield Entry("top", "fllm_metrics.top.command:top", "Watch a running server in the terminal.")
