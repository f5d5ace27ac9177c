"""The names of `furiosa-llm`: its thirteen families, and ours beside them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fllm_metrics import buckets
from fllm_metrics.families import PREFIX, Families
from fllm_metrics.metrics_state import Figures
from fllm_metrics.request_outcome import OUTCOMES


class FuriosaPage(Collector):
    """The figures under the prefix ``furiosa_llm:``."""

    def __init__(self, figures: Figures, model_name: str) -> None:
        self._figures = figures
        self._make = Families(PREFIX, {"model_name": model_name})

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield from self._counts()
        yield from self._times()
        yield from self._lengths()
        yield from self._engine()
        yield from self._gaps()

    def _counts(self) -> Iterator[Metric]:
        make, figures = self._make, self._figures
        in_flight = figures.in_flight
        yield make.gauge("num_requests_running", "Requests with a first token", in_flight.running)
        yield make.gauge("num_requests_waiting", "Requests without a token", in_flight.waiting)
        yield make.counter("request_received", "Requests received", figures.received_total)
        yield make.counter("request_success", "Requests that succeeded", figures.success_total)
        yield make.counter("request_failure", "Requests that failed", figures.failure_total)
        outcomes = {outcome: figures.outcomes[outcome] for outcome in OUTCOMES}
        yield make.counters("request_outcome", "Requests that ended, by how they did", "outcome", outcomes)
        yield make.counter("prompt_tokens", "Prompt tokens computed", figures.prompt_tokens_total)
        yield make.counter("generation_tokens", "Tokens generated", figures.generation_tokens_total)

    def _times(self) -> Iterator[Metric]:
        for name, text, samples, bounds in (
            (
                "time_to_first_token_seconds",
                "From arrival to the first token",
                self._figures.first_token,
                buckets.FIRST_TOKEN,
            ),
            (
                "e2e_request_latency_seconds",
                "From arrival to the end of the answer",
                self._figures.end_to_end,
                buckets.END_TO_END,
            ),
            (
                "request_queue_time_seconds",
                "In the engine, before the first prefill",
                self._figures.queue,
                buckets.FIRST_TOKEN,
            ),
        ):
            yield self._make.histogram(name, text, samples, bounds)

    def _lengths(self) -> Iterator[Metric]:
        figures, bounds = self._figures, buckets.tokens(self._figures.max_model_len)
        for name, text, samples in (
            ("request_prompt_tokens", "Prompt tokens of a request", figures.prompt_length),
            ("request_generation_tokens", "Tokens of an answer", figures.answer_length),
            ("request_params_max_tokens", "Tokens allowed to an answer", figures.limit),
        ):
            yield self._make.histogram(name, text, samples, bounds)

    def _engine(self) -> Iterator[Metric]:
        status, up = self._figures.status, self._figures.engine_up
        yield self._make.gauge("engine_up", "1 while the engine answers, 0 while it does not", up)
        usage = status.kv_blocks_used / status.kv_blocks if status.kv_blocks else 0.0
        yield self._make.gauge("kv_cache_usage", "Share of the KV blocks in use, 0 to 1", usage)
        for name, text, total in (
            ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", status.prefix_queries),
            ("prefix_cache_hits", "Prompt tokens found in the prefix cache", status.prefix_hits),
            ("preemptions", "Sequences put back for want of KV blocks", status.preemptions),
            ("spec_decode_num_draft_tokens", "Tokens guessed by speculation", status.drafted),
            ("spec_decode_num_accepted_tokens", "Guessed tokens that were right", status.accepted),
        ):
            yield self._make.counter(name, text, total)

    def _gaps(self) -> Iterator[Metric]:
        for name, text, bounds in (
            ("time_per_output_token_seconds", "Between two pieces of an answer", buckets.OUTPUT_TOKEN),
            ("inter_token_latency_seconds", "The same, divided more finely", buckets.BETWEEN_TOKENS),
        ):
            yield self._make.histogram(name, text, self._figures.between_tokens, bounds)
