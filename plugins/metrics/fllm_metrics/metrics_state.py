"""Counts and distributions of all requests, independent of metric names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fllm import EngineStats, RequestRecord
from fllm.values import ModelStats
from fllm_metrics import buckets
from fllm_metrics.distribution import Distribution
from fllm_metrics.in_flight import InFlight
from fllm_metrics.request_outcome import outcome


class MetricsState:
    """Records each event once; pages expose it under one or more names.

    The distributions of whole requests leave out failed requests, because fast rejections would make the
    latency look better than it is.
    """

    def __init__(self, max_model_len: int) -> None:
        self.max_model_len = max_model_len
        self.status = EngineStats()
        """Last known status of the engine. After a restart of the engine its counters start at 0."""
        self.engine_up: bool | None = False
        """``None``: the model is not loaded, so it has no engine."""
        self.model: ModelStats | None = None
        """What the server does with the model, if it loads models on demand."""
        self.in_flight = InFlight()
        self.received_total = 0
        self.success_total = 0
        self.failure_total = 0
        self.prompt_tokens_total = 0
        self.generation_tokens_total = 0
        self.outcomes: Counter[str] = Counter()
        self.finish_reasons: Counter[str] = Counter()
        """Requests that reached the engine, by finish reason."""
        self._make_times()
        self._make_lengths(buckets.tokens(max_model_len))

    def _make_times(self) -> None:
        self.time_to_first_token = Distribution(buckets.VLLM_FIRST_TOKEN)
        self.e2e_latency = Distribution(buckets.VLLM_REQUEST)
        self.inter_token_latency = Distribution(buckets.BETWEEN_TOKENS, buckets.VLLM_OUTPUT_TOKEN)
        self.time_per_output_token = Distribution(buckets.VLLM_OUTPUT_TOKEN)
        """Mean per request."""
        self.queue_time = Distribution(buckets.FIRST_TOKEN, buckets.VLLM_REQUEST)
        self.inference_time = Distribution(buckets.VLLM_REQUEST)
        self.prefill_time = Distribution(buckets.VLLM_REQUEST)
        self.decode_time = Distribution(buckets.VLLM_REQUEST)

    def _make_lengths(self, bounds: Sequence[int]) -> None:
        self.prompt_tokens = Distribution(bounds)
        self.generated_tokens = Distribution(bounds)
        self.max_tokens = Distribution(bounds)
        self.choices = Distribution(buckets.VLLM_CHOICES)

    def update_status(self, status: EngineStats | None) -> None:
        """Update the engine's status; None if the engine did not respond."""
        self.status = status or self.status
        self.engine_up = status is not None

    def update_model(self, model: ModelStats) -> None:
        """Update the state of a model that is loaded on demand, and the status of its engine."""
        self.model = model
        if model.state == "loaded":
            self.update_status(model.engine)
        else:
            self.status, self.engine_up = EngineStats(), None

    def record_start(self) -> None:
        """Count a received request."""
        self.in_flight.add()
        self.received_total += 1

    def record_first_token(self, request: RequestRecord) -> None:
        """Record the first token of a request."""
        self.in_flight.mark_running()
        self.prompt_tokens_total += request.prompt_tokens
        self.queue_time.observe(request.queue_time)
        if request.first_token_at is not None:
            self.time_to_first_token.observe(request.first_token_at - request.received_at)

    def record_progress(self, gaps: Sequence[float], tokens: int) -> None:
        """Record new tokens, with one sample per gap between outputs."""
        self.generation_tokens_total += tokens
        self.inter_token_latency.observe_all(gaps)

    def record_end(self, request: RequestRecord) -> None:
        """Count a finished request, and record its distributions if it succeeded."""
        self.in_flight.remove(request)
        self.outcomes[outcome(request)] += 1
        self.finish_reasons.update(_finish_reason(request))
        if request.error is not None:
            self.failure_total += 1
            return
        self.success_total += 1
        self._measure_length(request)
        self._measure_time(request)

    def _measure_length(self, request: RequestRecord) -> None:
        self.prompt_tokens.observe(request.prompt_tokens)
        self.generated_tokens.observe(request.generated_tokens)
        available = self.max_model_len - request.prompt_tokens
        self.max_tokens.observe(available if request.max_tokens is None else request.max_tokens)
        self.choices.observe(request.n)

    def _measure_time(self, request: RequestRecord) -> None:
        end, first = request.finished_at, request.first_token_at
        if end is None:
            return
        self.e2e_latency.observe(end - request.received_at)
        if first is None or request.submitted_at is None:
            return
        prefill_start = request.submitted_at + request.queue_time
        self.prefill_time.observe(max(first - prefill_start, 0.0))
        self.inference_time.observe(max(end - prefill_start, 0.0))
        self.decode_time.observe(end - first)
        if request.generated_tokens > 1:
            self.time_per_output_token.observe((end - first) / (request.generated_tokens - 1))


def _finish_reason(request: RequestRecord) -> list[str]:
    """Return the finish reason of the whole request; none if it never reached the engine."""
    finish_reasons = request.finish_reasons
    if request.error is None or not finish_reasons:
        return ["length" if reason == "length" else "stop" for reason in finish_reasons[:1]]
    return ["error" if "error" in finish_reasons else "abort"]
