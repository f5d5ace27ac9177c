"""``--metrics-compat vllm``: the names, types, labels and buckets of vLLM's V1 engine, for its dashboards.

Left out is what has no counterpart here: LoRA adapters, the engine's iterations, the cache's configuration.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fllm_metrics import buckets
from fllm_metrics.families import Families
from fllm_metrics.metrics_state import Figures

REASONS = ("stop", "length", "abort", "error")


class VllmPage(Collector):
    """The same figures once more, under the prefix ``vllm:``."""

    def __init__(self, figures: Figures, model_name: str) -> None:
        self._figures = figures
        self._make = Families("vllm:", {"model_name": model_name, "engine": "0"})

    def collect(self) -> Iterator[Metric]:
        """All of them; where vLLM changed a name, the older one beside it."""
        yield from self._load()
        yield from self._cache()
        yield from self._counts()
        yield from self._tokens()
        yield from self._times()
        yield from self._lengths()

    def _load(self) -> Iterator[Metric]:
        in_flight = self._figures.in_flight
        yield self._make.gauge("num_requests_running", "Requests with a first token", in_flight.running)
        yield self._make.gauge("num_requests_waiting", "Requests without a token", in_flight.waiting)

    def _cache(self) -> Iterator[Metric]:
        status = self._figures.status
        usage = status.kv_blocks_used / status.kv_blocks if status.kv_blocks else 0.0
        for name in ("kv_cache_usage_perc", "gpu_cache_usage_perc"):
            yield self._make.gauge(name, "Share of the KV blocks in use, 0 to 1", usage)
        for prefix in ("", "gpu_"):
            for name, text, total in (
                ("prefix_cache_queries", "Prompt tokens looked up in the cache", status.prefix_queries),
                ("prefix_cache_hits", "Prompt tokens found in the cache", status.prefix_hits),
            ):
                yield self._make.counter(prefix + name, text, total)

    def _counts(self) -> Iterator[Metric]:
        make, figures, status = self._make, self._figures, self._figures.status
        yield make.counter("num_preemptions", "Sequences put back for want of blocks", status.preemptions)
        yield make.counter("prompt_tokens", "Prompt tokens computed", figures.prompt_tokens_total)
        yield make.counter("generation_tokens", "Tokens generated", figures.generation_tokens_total)
        totals = {reason: figures.reasons[reason] for reason in REASONS}
        yield make.counters("request_success", "Requests by how they ended", "finished_reason", totals)
        yield make.counter("spec_decode_num_draft_tokens", "Tokens guessed", status.drafted)
        yield make.counter(
            "spec_decode_num_accepted_tokens", "Guessed tokens that were right", status.accepted
        )

    def _tokens(self) -> Iterator[Metric]:
        figures = self._figures
        for name, text, samples in (
            ("inter_token_latency_seconds", "Between two pieces of an answer", figures.between_tokens),
            ("time_per_output_token_seconds", "The same, by its older name", figures.between_tokens),
            ("request_time_per_output_token_seconds", "The mean of an answer", figures.each_token),
        ):
            yield self._make.histogram(name, text, samples, buckets.VLLM_OUTPUT_TOKEN)

    def _times(self) -> Iterator[Metric]:
        make, figures = self._make, self._figures
        yield make.histogram(
            "time_to_first_token_seconds",
            "From arrival to the first token",
            figures.first_token,
            buckets.VLLM_FIRST_TOKEN,
        )
        for name, text, samples in (
            ("e2e_request_latency_seconds", "From arrival to the end of the answer", figures.end_to_end),
            ("request_queue_time_seconds", "In the engine, before the first prefill", figures.queue),
            ("request_inference_time_seconds", "From the first prefill to the end", figures.inference),
            ("request_prefill_time_seconds", "From the first prefill to the first token", figures.prefill),
            ("request_decode_time_seconds", "From the first token to the end", figures.decode),
        ):
            yield make.histogram(name, text, samples, buckets.VLLM_REQUEST)

    def _lengths(self) -> Iterator[Metric]:
        make, figures, bounds = self._make, self._figures, buckets.tokens(self._figures.max_model_len)
        for name, text, samples in (
            ("request_prompt_tokens", "Prompt tokens of a request", figures.prompt_length),
            ("request_generation_tokens", "Tokens of an answer", figures.answer_length),
            ("request_params_max_tokens", "Tokens allowed to an answer", figures.limit),
        ):
            yield make.histogram(name, text, samples, bounds)
        yield make.histogram("request_params_n", "Answers to a prompt", figures.answers, buckets.VLLM_ANSWERS)
