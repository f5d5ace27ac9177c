"""Export of spans, also to endpoints that fail."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from threading import Event

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from fllm import MetricsConfig, MetricsContext, UserError
from fllm_metrics.otel.export import LogOnceExporter, closing, traces_url
from fllm_metrics.otel.plugin import fllm_collectors


class ScriptedExporter(SpanExporter):
    """Returns the given results in turn."""

    def __init__(self, *results: bool) -> None:
        self._results = list(results)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS if self._results.pop(0) else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        pass


class HangingExporter(SpanExporter):
    """Never returns by itself."""

    def __init__(self) -> None:
        self.released = Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.released.wait()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://h:4318", "http://h:4318/v1/traces"),
        ("http://h:4318/", "http://h:4318/v1/traces"),
        ("https://h/otel", "https://h/otel/v1/traces"),
        ("http://h:4318/v1/traces", "http://h:4318/v1/traces"),
    ],
)
def test_traces_go_to_their_path(endpoint: str, url: str) -> None:
    assert traces_url(endpoint) == url


def test_the_loss_of_traces_and_its_end_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "fllm.otel")
    exporter = LogOnceExporter(ScriptedExporter(True, False, False, False, True, True, False), "http://h")
    for _ in range(7):
        exporter.export([])
    assert [record.getMessage() for record in caplog.records] == [
        "traces are lost until the endpoint accepts them again: http://h",
        "the endpoint accepts traces again: http://h",
        "traces are lost until the endpoint accepts them again: http://h",
    ]


def test_the_end_of_the_server_does_not_wait_for_an_endpoint_that_hangs() -> None:
    provider, exporter = TracerProvider(shutdown_on_exit=False), HangingExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    provider.get_tracer("t").start_span("s").end()
    closing(provider, seconds=0.05)()
    assert not exporter.released.is_set()
    exporter.released.set()


def test_without_an_endpoint_there_is_nothing_and_opentelemetry_is_not_imported() -> None:
    script = """
import sys
from fllm import MetricsContext
from fllm_metrics.otel.plugin import fllm_collectors
print([*fllm_collectors(MetricsContext(model_name="m", max_model_len=1))], "opentelemetry" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[] False\n"


def test_the_error_about_missing_opentelemetry_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "fllm_metrics.otel.export", None)
    config = MetricsConfig(otlp_endpoint="http://localhost:4318")
    with pytest.raises(UserError, match=r"pip install 'furiosa-llm-server\[otel\]'"):
        list(fllm_collectors(MetricsContext(model_name="m", max_model_len=1, config=config)))
