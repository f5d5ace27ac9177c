"""Register the span collector; OpenTelemetry is imported only if there is an endpoint."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import Collector, MetricsContext, UserError, hookimpl


@hookimpl
def fllm_collectors(context: MetricsContext) -> Iterable[Collector]:
    """Yield a collector if there is an endpoint; raise `UserError` if OpenTelemetry is not installed."""
    endpoint = context.config.otlp_endpoint
    if endpoint is None:
        return
    try:
        from fllm_metrics.otel.export import provider_for
        from fllm_metrics.otel.spans import SpanCollector
    except ImportError as error:
        raise UserError(
            f"--otlp-endpoint needs OpenTelemetry ({error}): pip install 'furiosa-llm-server[otel]'"
        ) from error
    yield SpanCollector(provider_for(endpoint), context.model_name)
