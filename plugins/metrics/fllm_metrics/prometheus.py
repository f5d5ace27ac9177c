"""What Prometheus scrapes: the thirteen families of `furiosa-llm`, and ours beside them."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from fllm import Exposition, MetricsContext, RequestRecord, Status
from fllm_metrics import buckets
from fllm_metrics.families import EngineFamilies, Families, WithoutCreated
from fllm_metrics.gaps import Gaps
from fllm_metrics.inflight import InFlight
from fllm_metrics.outcomes import Outcomes


class PrometheusCollector:
    """Observes each event when it happens.

    A request that failed leaves no sample in the histograms of whole requests: a refusal within a
    millisecond would flatter the latency.
    """

    def __init__(self, context: MetricsContext) -> None:
        self._in_flight = InFlight()
        self._max_model_len = context.max_model_len
        self._registry = CollectorRegistry()
        make = Families(self._registry, context.model_name)
        make.gauge("num_requests_running", "Requests with a first token", lambda: self._in_flight.running)
        make.gauge("num_requests_waiting", "Requests without a token", lambda: self._in_flight.waiting)
        self._received = make.counter("request_received", "Requests received")
        self._success = make.counter("request_success", "Requests that succeeded")
        self._failure = make.counter("request_failure", "Requests that failed")
        self._outcomes = Outcomes(self._registry, context.model_name)
        self._prompt_tokens = make.counter("prompt_tokens", "Prompt tokens computed")
        self._generation_tokens = make.counter("generation_tokens", "Tokens generated")
        self._make_times(make)
        self._make_lengths(make)
        self._engine = EngineFamilies(context.model_name)
        self._gaps = Gaps(context.model_name)
        self._registry.register(self._engine)
        self._registry.register(self._gaps)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def _make_times(self, make: Families) -> None:
        self._first_token = make.histogram(
            "time_to_first_token_seconds", "From arrival to the first token", buckets.FIRST_TOKEN
        )
        self._end_to_end = make.histogram(
            "e2e_request_latency_seconds", "From arrival to the end of the answer", buckets.END_TO_END
        )
        self._queue_time = make.histogram(
            "request_queue_time_seconds",
            "In the engine, before the first prefill",
            buckets.FIRST_TOKEN,
        )

    def _make_lengths(self, make: Families) -> None:
        bounds = buckets.tokens(self._max_model_len)
        self._prompt_length = make.histogram("request_prompt_tokens", "Prompt tokens of a request", bounds)
        self._answer_length = make.histogram("request_generation_tokens", "Tokens of an answer", bounds)
        self._limit = make.histogram("request_params_max_tokens", "Tokens allowed to an answer", bounds)

    def received(self, request: RequestRecord) -> None:
        """It waits."""
        self._in_flight.received(request)
        self._received.inc()

    def started(self, request: RequestRecord) -> None:
        """Its prompt is computed, and its first token is here."""
        self._in_flight.started(request)
        self._prompt_tokens.inc(request.prompt_tokens)
        self._queue_time.observe(request.queued)
        if request.first_token_at is not None:
            self._first_token.observe(request.first_token_at - request.received_at)

    def progressed(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:  # noqa: ARG002
        """One sample for each gap, however many tokens ended it."""
        self._generation_tokens.inc(tokens)
        self._gaps.observe(gaps)

    def finished(self, request: RequestRecord) -> None:
        """It succeeded, or it failed."""
        self._in_flight.finished(request)
        self._outcomes.finished(request)
        if request.error is not None:
            self._failure.inc()
            return
        self._success.inc()
        self._prompt_length.observe(request.prompt_tokens)
        self._answer_length.observe(request.generated_tokens)
        rest = self._max_model_len - request.prompt_tokens
        self._limit.observe(rest if request.max_tokens is None else request.max_tokens)
        if request.finished_at is not None:
            self._end_to_end.observe(request.finished_at - request.received_at)

    def expose(self, status: Status | None, accept: str) -> Exposition:
        """The page; where the engine gives no status, its last one is repeated."""
        self._engine.hear(status)
        encode, content_type = choose_encoder(accept)
        return Exposition(content_type, encode(WithoutCreated(self._registry)))
