"""How spans leave: in batches, by a thread of their own. OpenTelemetry's environment variables hold."""

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
"""``service.name``, unless the environment says another."""
PATH = "/v1/traces"
FLUSH_SECONDS = 3.0
"""At the end of the server, for what has not been sent."""

log = logging.getLogger("fllm.otel")


def provider_for(endpoint: str) -> TracerProvider:
    """Makes spans that are sent to ``endpoint`` until the process ends; it need not be there."""
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    exporter = OnceTold(OTLPSpanExporter(endpoint=traces_url(endpoint)), endpoint)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    atexit.register(closing(provider))
    return provider


def traces_url(endpoint: str) -> str:
    """Where traces go at an endpoint that takes all signals."""
    return endpoint if endpoint.endswith(PATH) else endpoint.rstrip("/") + PATH


def closing(provider: TracerProvider, seconds: float = FLUSH_SECONDS) -> Callable[[], None]:
    """Makes what sends the rest, if that can be done in time: by itself, `shutdown` takes half a minute."""
    ending = Event()

    def wait() -> None:
        ending.wait()
        provider.shutdown()

    # Begun now: an interpreter that ends may start no thread any more.
    thread = Thread(target=wait, name="fllm-otel-end", daemon=True)
    thread.start()

    def close() -> None:
        ending.set()
        thread.join(seconds)

    return close


class OnceTold(SpanExporter):
    """Says once that spans are lost, and once that they no longer are; the exporter itself would say it for
    every batch and attempt."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._exporter = exporter
        self._endpoint = endpoint
        self._lost = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Pass them on."""
        result = self._exporter.export(spans)
        lost = result is not SpanExportResult.SUCCESS
        if lost and not self._lost:
            log.warning("traces are lost: %s does not take them; this is said once", self._endpoint)
        elif self._lost and not lost:
            log.info("%s takes traces again", self._endpoint)
        self._lost = lost
        return result

    def shutdown(self) -> None:
        """No more will come; an attempt that is under way ends."""
        self._exporter.shutdown()


def _resource() -> Resource:
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
    return resource
