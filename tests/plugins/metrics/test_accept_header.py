"""Every scraper gets our names as they are, in the samples too."""

from __future__ import annotations

import pytest

from fllm import EngineStats, MetricsContext
from fllm_metrics.prometheus import PrometheusCollector

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
UNDERSCORES = "application/openmetrics-text;version=1.0.0;escaping=underscores,text/plain;version=0.0.4;q=0.5"


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        PROMETHEUS_2,
        PROMETHEUS_3,
        UNDERSCORES,
        "application/openmetrics-text",
        "application/openmetrics-text; version=0.0.1",
        "text/plain;version=1.0.0",
        "text/plain;version=1.0.0;escaping=values",
    ],
)
def test_the_colon_of_our_names_is_kept(accept: str) -> None:
    collector = PrometheusCollector(MetricsContext(model_name="m", max_model_len=100))
    page = collector.expose(EngineStats(), accept).body.decode()
    samples = [line for line in page.splitlines() if not line.startswith("#")]
    assert 'furiosa_llm:request_received_total{model_name="m"} 0.0' in samples
    assert [line for line in samples if line.startswith("furiosa_llm_")] == []
