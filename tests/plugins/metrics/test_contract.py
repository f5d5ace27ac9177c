"""The built-in collectors fulfil the contract of collectors."""

from __future__ import annotations

from fllm import Collector, MetricsConfig, MetricsContext
from fllm.testing import CollectorContract
from fllm_metrics.access_log import AccessLog
from fllm_metrics.prometheus import PrometheusCollector
from fllm_metrics.stats_log import StatsLog


class TestPrometheus(CollectorContract):
    @classmethod
    def collector(cls) -> Collector:
        return PrometheusCollector(MetricsContext(model_name="org/model", max_model_len=300))


class TestEveryPage(CollectorContract):
    @classmethod
    def collector(cls) -> Collector:
        config = MetricsConfig(enabled=True, compat=("vllm",))
        return PrometheusCollector(MetricsContext(model_name="org/model", max_model_len=300, config=config))


class TestAccess(CollectorContract):
    @classmethod
    def collector(cls) -> Collector:
        return AccessLog()


class TestLog(CollectorContract):
    @classmethod
    def collector(cls) -> Collector:
        return StatsLog()
