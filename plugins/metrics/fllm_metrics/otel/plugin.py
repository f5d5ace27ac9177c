"""Register the span collector; OpenTelemetry is imported only if there is an endpoint."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import Collector, MetricsContext, hookimpl
from fllm.extras import require_extra


@hookimpl
def fllm_collectors(context: MetricsContext) -> Iterable[Collector]:
    """Yield a collector if there is an endpoint; raise `ConfigError` if OpenTelemetry is not installed."""
    endpoint = context.config.otlp_endpoint
    if endpoint is None:
        return
    require_extra("otel", "--otlp-endpoint needs OpenTelemetry")

    from fllm_metrics.otel.export import provider_for
    from fllm_metrics.otel.spans import SpanCollector

    yield SpanCollector(provider_for(endpoint), context.model_name)
