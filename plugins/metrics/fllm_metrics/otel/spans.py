"""Create spans for each request and its phases: queue, prefill and decode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fllm import Collector, RequestRecord
from fllm_metrics.otel.attributes import attributes_of

Phase = tuple[str, float, float]
"""Name, start and end."""


class SpanCollector(Collector):
    """Creates all spans of a request at its end, when all times are known."""

    def __init__(
        self, provider: TracerProvider, model_name: str, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._tracer: Tracer = provider.get_tracer("furiosa-llm")
        self._propagator = TraceContextTextMapPropagator()
        self._model_name = model_name
        self._clock = clock

    def on_request_end(self, request: RequestRecord) -> None:
        """Create the spans, which another thread sends."""
        times = EpochTimes(request, self._clock())
        span = self._tracer.start_span(
            f"{request.method} {request.path}",
            context=self._propagator.extract(request.trace_context),
            kind=SpanKind.SERVER,
            start_time=times.of(request.received_at),
        )
        if span.is_recording():
            span.set_attributes(attributes_of(request, request.model or self._model_name))
            _set_status(span, request)
            self._add_phases(span, request, times)
        span.end(times.end)

    def _add_phases(self, parent: Span, request: RequestRecord, times: EpochTimes) -> None:
        context = set_span_in_context(parent)
        for name, start, end in phases(request):
            child = self._tracer.start_span(name, context=context, start_time=times.of(start))
            child.end(times.of(end))


class EpochTimes:
    """Converts times of a request to nanoseconds since 1970, as OpenTelemetry requires them."""

    def __init__(self, request: RequestRecord, now: int) -> None:
        self.end = now
        """End of the request."""
        self._finished_at = request.finished_at or request.received_at

    def of(self, seconds: float) -> int:
        """Convert a time of the request's clock."""
        return self.end - round((self._finished_at - seconds) * 1e9)


def phases(request: RequestRecord) -> Iterator[Phase]:
    """Yield the phases that a request reached in the engine."""
    submitted, end = request.submitted_at, request.finished_at
    if submitted is None or end is None:
        return
    first = request.first_token_at
    if first is None:
        yield "queue", submitted, end
        return
    prefill_start = min(submitted + request.queue_time, first)
    yield "queue", submitted, prefill_start
    yield "prefill", prefill_start, first
    yield "decode", first, end


def _set_status(span: Span, request: RequestRecord) -> None:
    """Set the error status, except for 400 to 499, which by the conventions are the client's."""
    if request.error is not None and not (request.status and 400 <= request.status < 500):
        span.set_status(Status(StatusCode.ERROR, request.error))
