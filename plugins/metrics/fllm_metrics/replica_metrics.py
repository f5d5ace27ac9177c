"""Metrics of each of several replicas, with the label ``replica``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from fllm.values import ReplicaStats
from fllm_metrics.families import Families
from fllm_metrics.metrics_state import MetricsState

GAUGES: tuple[tuple[str, str, Callable[[ReplicaStats], float]], ...] = (
    ("requests", "Requests in flight", lambda replica: replica.requests),
    (
        "queued_tokens",
        "Prompt tokens to compute before their first outputs",
        lambda replica: replica.queued_tokens,
    ),
    ("kv_cache_usage", "Share of the KV blocks in use, 0 to 1", lambda replica: _usage(replica)),
)
COUNTERS: tuple[tuple[str, str, Callable[[ReplicaStats], float]], ...] = (
    ("received_requests", "Requests that it got", lambda replica: replica.total_requests),
    ("retried_requests", "Requests that others began again", lambda replica: replica.retries),
    ("resumed_requests", "Requests that others continued", lambda replica: replica.resumptions),
    ("restarts", "Times that its engine ended", lambda replica: replica.restarts),
    ("prefix_cache_queries", "Prompt tokens looked up", lambda replica: replica.stats.prefix_queries),
    ("prefix_cache_hits", "Prompt tokens found", lambda replica: replica.stats.prefix_hits),
    ("preemptions", "Sequences preempted", lambda replica: replica.stats.preemptions),
)


def replica_families(make: Families, state: MetricsState) -> Iterator[Metric]:
    """Yield the families of the replicas; none if there is one engine."""
    replicas = state.status.replicas
    if not replicas:
        return
    up = {
        each.name: float(bool(state.engine_up) and each.state in ("ready", "draining", "drained"))
        for each in replicas
    }
    yield make.gauges("replica_up", "1 if the engine of the replica responds, else 0", "replica", up)
    accepts = {each.name: float(bool(state.engine_up) and each.state == "ready") for each in replicas}
    yield make.gauges("replica_ready", "1 if the replica gets new requests, else 0", "replica", accepts)
    for name, text, value in GAUGES:
        values = {replica.name: value(replica) for replica in replicas}
        yield make.gauges(f"replica_{name}", text, "replica", values)
    for name, text, value in COUNTERS:
        totals = {replica.name: value(replica) for replica in replicas}
        yield make.counters(f"replica_{name}", text, "replica", totals)


def _usage(replica: ReplicaStats) -> float:
    stats = replica.stats
    return stats.kv_blocks_used / stats.kv_blocks if stats.kv_blocks else 0.0
