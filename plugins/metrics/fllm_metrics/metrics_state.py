"""What is counted, under nobody's names yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fllm import EngineStats, RequestRecord
from fllm_metrics import buckets
from fllm_metrics.distribution import Distribution
from fllm_metrics.in_flight import InFlight
from fllm_metrics.request_outcome import outcome


class Figures:
    """Hears of each event when it happens, and counts it once; pages show it under one name or several.

    A request that failed leaves no sample in the distributions of whole requests: a refusal within a
    millisecond would flatter the latency.
    """

    def __init__(self, max_model_len: int) -> None:
        self.max_model_len = max_model_len
        self.status = EngineStats()
        """The engine's last that is known; of an engine that was started again it begins at 0."""
        self.engine_up = False
        self.in_flight = InFlight()
        self.received_total = 0
        self.success_total = 0
        self.failure_total = 0
        self.prompt_tokens_total = 0
        self.generation_tokens_total = 0
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        """Requests that came to the engine, by how they ended."""
        self._make_times()
        self._make_lengths(buckets.tokens(max_model_len))

    def _make_times(self) -> None:
        self.first_token = Distribution(buckets.VLLM_FIRST_TOKEN)
        self.end_to_end = Distribution(buckets.VLLM_REQUEST)
        self.between_tokens = Distribution(buckets.BETWEEN_TOKENS, buckets.VLLM_OUTPUT_TOKEN)
        self.each_token = Distribution(buckets.VLLM_OUTPUT_TOKEN)
        """The mean of each answer, one sample for a request."""
        self.queue = Distribution(buckets.FIRST_TOKEN, buckets.VLLM_REQUEST)
        self.inference = Distribution(buckets.VLLM_REQUEST)
        self.prefill = Distribution(buckets.VLLM_REQUEST)
        self.decode = Distribution(buckets.VLLM_REQUEST)

    def _make_lengths(self, bounds: Sequence[int]) -> None:
        self.prompt_length = Distribution(bounds)
        self.answer_length = Distribution(bounds)
        self.limit = Distribution(bounds)
        self.answers = Distribution(buckets.VLLM_ANSWERS)

    def hear(self, status: EngineStats | None) -> None:
        """Keep the engine's last status, and whether it still answers."""
        self.status = status or self.status
        self.engine_up = status is not None

    def received(self) -> None:
        """A request waits."""
        self.in_flight.received()
        self.received_total += 1

    def started(self, request: RequestRecord) -> None:
        """Its prompt is computed, and its first token is here."""
        self.in_flight.started()
        self.prompt_tokens_total += request.prompt_tokens
        self.queue.observe(request.queue_time)
        if request.first_token_at is not None:
            self.first_token.observe(request.first_token_at - request.received_at)

    def progressed(self, gaps: Sequence[float], tokens: int) -> None:
        """One sample for each gap, however many tokens ended it."""
        self.generation_tokens_total += tokens
        self.between_tokens.observe_all(gaps)

    def finished(self, request: RequestRecord) -> None:
        """It is measured as a whole, unless it failed."""
        self.in_flight.finished(request)
        self.outcomes[outcome(request)] += 1
        self.reasons.update(_reason(request))
        if request.error is not None:
            self.failure_total += 1
            return
        self.success_total += 1
        self._measure_length(request)
        self._measure_time(request)

    def _measure_length(self, request: RequestRecord) -> None:
        self.prompt_length.observe(request.prompt_tokens)
        self.answer_length.observe(request.generated_tokens)
        rest = self.max_model_len - request.prompt_tokens
        self.limit.observe(rest if request.max_tokens is None else request.max_tokens)
        self.answers.observe(request.answers)

    def _measure_time(self, request: RequestRecord) -> None:
        end, first = request.finished_at, request.first_token_at
        if end is None:
            return
        self.end_to_end.observe(end - request.received_at)
        if first is None or request.submitted_at is None:
            return
        began = request.submitted_at + request.queue_time
        self.prefill.observe(max(first - began, 0.0))
        self.inference.observe(max(end - began, 0.0))
        self.decode.observe(end - first)
        if request.generated_tokens > 1:
            self.each_token.observe((end - first) / (request.generated_tokens - 1))


def _reason(request: RequestRecord) -> list[str]:
    """Of the whole request, in the engine's words; none where the engine never had it."""
    reasons = request.finish_reasons
    if request.error is None or not reasons:
        return ["length" if reason == "length" else "stop" for reason in reasons[:1]]
    return ["error" if "error" in reasons else "abort"]
