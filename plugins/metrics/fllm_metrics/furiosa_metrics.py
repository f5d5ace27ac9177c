"""Metrics under the names of the vendor's `furiosa-llm` (thirteen families), and our additional ones."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fllm_metrics import buckets
from fllm_metrics.families import PREFIX, Families
from fllm_metrics.metrics_state import MetricsState
from fllm_metrics.model_metrics import model_families
from fllm_metrics.replica_metrics import replica_families
from fllm_metrics.request_outcome import OUTCOMES


class FuriosaPage(Collector):
    """Exposes the metrics with the prefix ``furiosa_llm:``."""

    def __init__(self, state: MetricsState, model_name: str) -> None:
        self._state = state
        self._make = Families(PREFIX, {"model_name": model_name})

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        yield from self._counts()
        yield from self._times()
        yield from self._lengths()
        yield from self._engine()
        yield from self._gaps()
        yield from replica_families(self._make, self._state)
        yield from model_families(self._make, self._state)

    def _counts(self) -> Iterator[Metric]:
        make, state = self._make, self._state
        in_flight = state.in_flight
        yield make.gauge("num_requests_running", "Requests with a first token", in_flight.running)
        yield make.gauge("num_requests_waiting", "Requests without a token", in_flight.waiting)
        yield make.counter("request_received", "Requests received", state.received_total)
        yield make.counter("request_success", "Requests that succeeded", state.success_total)
        yield make.counter("request_failure", "Requests that failed", state.failure_total)
        outcomes = {outcome: state.outcomes[outcome] for outcome in OUTCOMES}
        yield make.counters("request_outcome", "Finished requests by outcome", "outcome", outcomes)
        yield make.counter("prompt_tokens", "Prompt tokens computed", state.prompt_tokens_total)
        yield make.counter("generation_tokens", "Tokens generated", state.generation_tokens_total)

    def _times(self) -> Iterator[Metric]:
        for name, text, samples, bounds in (
            (
                "time_to_first_token_seconds",
                "From arrival to the first token",
                self._state.time_to_first_token,
                buckets.FIRST_TOKEN,
            ),
            (
                "e2e_request_latency_seconds",
                "From arrival to the end of the response",
                self._state.e2e_latency,
                buckets.END_TO_END,
            ),
            (
                "request_queue_time_seconds",
                "In the engine, before the first prefill",
                self._state.queue_time,
                buckets.FIRST_TOKEN,
            ),
        ):
            yield self._make.histogram(name, text, samples, bounds)

    def _lengths(self) -> Iterator[Metric]:
        state, bounds = self._state, buckets.tokens(self._state.max_model_len)
        for name, text, samples in (
            ("request_prompt_tokens", "Prompt tokens of a request", state.prompt_tokens),
            ("request_generation_tokens", "Generated tokens of a request", state.generated_tokens),
            ("request_params_max_tokens", "Maximum number of tokens of a request", state.max_tokens),
        ):
            yield self._make.histogram(name, text, samples, bounds)

    def _engine(self) -> Iterator[Metric]:
        status, up = self._state.status, self._state.engine_up
        if up is not None:
            yield self._make.gauge("engine_up", "1 if the engine responds, else 0", up)
        usage = status.kv_blocks_used / status.kv_blocks if status.kv_blocks else 0.0
        yield self._make.gauge("kv_cache_usage", "Share of the KV blocks in use, 0 to 1", usage)
        for name, text, total in (
            ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", status.prefix_queries),
            ("prefix_cache_hits", "Prompt tokens found in the prefix cache", status.prefix_hits),
            ("preemptions", "Sequences preempted because no KV blocks were free", status.preemptions),
            ("spec_decode_num_draft_tokens", "Draft tokens of speculative decoding", status.drafted),
            ("spec_decode_num_accepted_tokens", "Draft tokens that were accepted", status.accepted),
        ):
            yield self._make.counter(name, text, total)
        if status.drafted or status.drafters_off:
            text = "Engines that draft nothing now, because it loses time or the drafter has failed"
            yield self._make.gauge("spec_decode_off", text, status.drafters_off)
        yield from self._grammars()
        yield from self._cache_tiers()

    def _grammars(self) -> Iterator[Metric]:
        """Yield the families of the grammar backend, once it was used."""
        status = self._state.status
        for name, text, total in (
            ("grammar_compilations", "Constraints that were compiled", status.grammar_compilations),
            ("grammar_errors", "Constraints that could not be compiled", status.grammar_errors),
            ("grammar_compile_seconds", "Time of compiling constraints", status.grammar_seconds),
        ):
            if status.grammar_compilations:
                yield self._make.counter(name, text, total)

    def _cache_tiers(self) -> Iterator[Metric]:
        tiers, make = self._state.status.cache_tiers, self._make
        if not tiers:
            return
        for name, text, field in (
            ("kv_offload_hits", "Prompt tokens restored from a tier below the KV cache", "hits"),
            ("kv_offload_misses", "Prompt tokens that neither it nor a tier above had", "misses"),
            ("kv_offload_read_bytes", "Bytes read from the disk", "read_bytes"),
            ("kv_offload_written_bytes", "Bytes written to the disk", "written_bytes"),
            ("kv_offload_dropped_blocks", "Blocks that could not be written in time", "dropped_blocks"),
        ):
            totals = {tier: getattr(stats, field) for tier, stats in tiers.items()}
            yield make.counters(name, text, "tier", totals)
        for name, text, field in (
            ("kv_offload_used_bytes", "Bytes of the blocks in a tier", "used_bytes"),
            ("kv_offload_limit_bytes", "Maximum of used_bytes", "limit_bytes"),
        ):
            values = {tier: getattr(stats, field) for tier, stats in tiers.items()}
            yield make.gauges(name, text, "tier", values)

    def _gaps(self) -> Iterator[Metric]:
        for name, text, bounds in (
            ("time_per_output_token_seconds", "Between two outputs of a request", buckets.OUTPUT_TOKEN),
            ("inter_token_latency_seconds", "The same, with more buckets", buckets.BETWEEN_TOKENS),
        ):
            yield self._make.histogram(name, text, self._state.inter_token_latency, bounds)
