"""Export spans in batches from a thread. OpenTelemetry's environment variables apply."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Sequence
from threading import Event, Thread

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

SERVICE = "furiosa-llm"
"""Default of ``service.name``, which the environment can override."""
PATH = "/v1/traces"
FLUSH_SECONDS = 3.0
"""Time to send the remaining spans when the server stops."""

log = logging.getLogger("fllm.otel")


def provider_for(endpoint: str) -> TracerProvider:
    """Return a provider that sends spans to ``endpoint`` until the process ends; it may be unreachable."""
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    exporter = LogOnceExporter(OTLPSpanExporter(endpoint=traces_url(endpoint)), endpoint)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    atexit.register(closing(provider))
    return provider


def traces_url(endpoint: str) -> str:
    """Return the URL for traces of an endpoint that receives all signals."""
    return endpoint if endpoint.endswith(PATH) else endpoint.rstrip("/") + PATH


def closing(provider: TracerProvider, seconds: float = FLUSH_SECONDS) -> Callable[[], None]:
    """Return a function that sends the remaining spans within ``seconds``; `shutdown` alone may take 30 s."""
    stopping = Event()

    def wait() -> None:
        stopping.wait()
        provider.shutdown()

    # Started now, because an interpreter that shuts down can't start threads.
    thread = Thread(target=wait, name="fllm-otel-end", daemon=True)
    thread.start()

    def close() -> None:
        stopping.set()
        thread.join(seconds)

    return close


class LogOnceExporter(SpanExporter):
    """Logs once when spans are lost, and once when the endpoint accepts them again.

    The wrapped exporter would log every batch and every attempt.
    """

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._exporter = exporter
        self._endpoint = endpoint
        self._lost = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the spans with the wrapped exporter."""
        result = self._exporter.export(spans)
        lost = result is not SpanExportResult.SUCCESS
        if lost and not self._lost:
            log.warning("traces are lost until the endpoint accepts them again: %s", self._endpoint)
        elif self._lost and not lost:
            log.info("the endpoint accepts traces again: %s", self._endpoint)
        self._lost = lost
        return result

    def shutdown(self) -> None:
        """Shut down the wrapped exporter; a running attempt ends."""
        self._exporter.shutdown()


def _resource() -> Resource:
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
    return resource
