"""Metrics under the names of vLLM's V1 engine, with its types and labels (``--metrics-compat vllm``).

The buckets are those of vLLM, too.

Metrics without a counterpart here are missing: LoRA adapters, iterations, the cache configuration.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fllm_metrics import buckets
from fllm_metrics.families import Families
from fllm_metrics.metrics_state import MetricsState

FINISH_REASONS = ("stop", "length", "abort", "error")


class VllmPage(Collector):
    """Exposes the metrics with the prefix ``vllm:``."""

    def __init__(self, state: MetricsState, model_name: str) -> None:
        self._state = state
        self._make = Families("vllm:", {"model_name": model_name, "engine": "0"})

    def collect(self) -> Iterator[Metric]:
        """Yield all families; also under the old name if vLLM has renamed one."""
        yield from self._load()
        yield from self._cache()
        yield from self._counts()
        yield from self._tokens()
        yield from self._times()
        yield from self._lengths()

    def _load(self) -> Iterator[Metric]:
        in_flight = self._state.in_flight
        yield self._make.gauge("num_requests_running", "Requests with a first token", in_flight.running)
        yield self._make.gauge("num_requests_waiting", "Requests without a token", in_flight.waiting)

    def _cache(self) -> Iterator[Metric]:
        status = self._state.status
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
        make, state, status = self._make, self._state, self._state.status
        yield make.counter(
            "num_preemptions", "Sequences preempted because no blocks were free", status.preemptions
        )
        yield make.counter("prompt_tokens", "Prompt tokens computed", state.prompt_tokens_total)
        yield make.counter("generation_tokens", "Tokens generated", state.generation_tokens_total)
        totals = {reason: state.finish_reasons[reason] for reason in FINISH_REASONS}
        yield make.counters("request_success", "Requests by finish reason", "finished_reason", totals)
        yield make.counter("spec_decode_num_draft_tokens", "Draft tokens", status.drafted)
        yield make.counter(
            "spec_decode_num_accepted_tokens", "Draft tokens that were accepted", status.accepted
        )

    def _tokens(self) -> Iterator[Metric]:
        state = self._state
        for name, text, samples in (
            ("inter_token_latency_seconds", "Between two outputs of a request", state.inter_token_latency),
            ("time_per_output_token_seconds", "The same, under its old name", state.inter_token_latency),
            ("request_time_per_output_token_seconds", "Mean per request", state.time_per_output_token),
        ):
            yield self._make.histogram(name, text, samples, buckets.VLLM_OUTPUT_TOKEN)

    def _times(self) -> Iterator[Metric]:
        make, state = self._make, self._state
        yield make.histogram(
            "time_to_first_token_seconds",
            "From arrival to the first token",
            state.time_to_first_token,
            buckets.VLLM_FIRST_TOKEN,
        )
        for name, text, samples in (
            ("e2e_request_latency_seconds", "From arrival to the end of the response", state.e2e_latency),
            ("request_queue_time_seconds", "In the engine, before the first prefill", state.queue_time),
            ("request_inference_time_seconds", "From the first prefill to the end", state.inference_time),
            ("request_prefill_time_seconds", "From the first prefill to the first token", state.prefill_time),
            ("request_decode_time_seconds", "From the first token to the end", state.decode_time),
        ):
            yield make.histogram(name, text, samples, buckets.VLLM_REQUEST)

    def _lengths(self) -> Iterator[Metric]:
        make, state, bounds = self._make, self._state, buckets.tokens(self._state.max_model_len)
        for name, text, samples in (
            ("request_prompt_tokens", "Prompt tokens of a request", state.prompt_tokens),
            ("request_generation_tokens", "Generated tokens of a request", state.generated_tokens),
            ("request_params_max_tokens", "Maximum number of tokens of a request", state.max_tokens),
        ):
            yield make.histogram(name, text, samples, bounds)
        yield make.histogram("request_params_n", "Choices of a request", state.choices, buckets.VLLM_CHOICES)
