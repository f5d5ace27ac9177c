"""``--metrics-compat vllm``: what dashboards and autoscalers of vLLM find here."""

from __future__ import annotations

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from fllm import EngineStats, MetricsConfig, MetricsContext
from fllm.pipeline.request_tracker import RequestTracker
from fllm_metrics.prometheus import PrometheusCollector

# As vLLM's V1 engine exposes them; the names that it has given up are those with gpu_.
FAMILIES = {
    "num_requests_running": "gauge",
    "num_requests_waiting": "gauge",
    "kv_cache_usage_perc": "gauge",
    "gpu_cache_usage_perc": "gauge",
    "prefix_cache_queries": "counter",
    "prefix_cache_hits": "counter",
    "gpu_prefix_cache_queries": "counter",
    "gpu_prefix_cache_hits": "counter",
    "num_preemptions": "counter",
    "prompt_tokens": "counter",
    "generation_tokens": "counter",
    "request_success": "counter",
    "spec_decode_num_draft_tokens": "counter",
    "spec_decode_num_accepted_tokens": "counter",
    "time_to_first_token_seconds": "histogram",
    "inter_token_latency_seconds": "histogram",
    "time_per_output_token_seconds": "histogram",
    "request_time_per_output_token_seconds": "histogram",
    "e2e_request_latency_seconds": "histogram",
    "request_queue_time_seconds": "histogram",
    "request_inference_time_seconds": "histogram",
    "request_prefill_time_seconds": "histogram",
    "request_decode_time_seconds": "histogram",
    "request_prompt_tokens": "histogram",
    "request_generation_tokens": "histogram",
    "request_params_n": "histogram",
    "request_params_max_tokens": "histogram",
}
TOP = {
    "time_to_first_token_seconds": 2560,
    "inter_token_latency_seconds": 80,
    "e2e_request_latency_seconds": 7680,
    "request_queue_time_seconds": 7680,
    "request_params_n": 20,
    "request_prompt_tokens": 200,
}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def build(*compat: str) -> PrometheusCollector:
    config = MetricsConfig(enabled=True, compat=compat)
    return PrometheusCollector(MetricsContext(model_name="org/model", max_model_len=300, config=config))


def page(collector: PrometheusCollector, status: EngineStats | None = None) -> dict[str, Metric]:
    return {family.name: family for family in parse(collector.expose(status, "").body.decode())}


def values(collector: PrometheusCollector, status: EngineStats | None = None) -> dict[str, float]:
    samples = [sample for family in page(collector, status).values() for sample in family.samples]
    return {s.name: s.value for s in samples if not s.name.endswith("_bucket")}


def ended(collector: PrometheusCollector, reason: str, error: str | None = None) -> None:
    """Submitted after 0.25 s, queued for 0.5 s, its first token 1 s later; three more in 1.5 s."""
    clock = Clock()
    tracker = RequestTracker("one", (collector,), clock)
    clock.now += 0.25
    tracker.submit(prompt_tokens=7, max_tokens=40, n=2)
    clock.now += 1.5
    tracker.step(0, 1, queue_time=0.5)
    clock.now += 1.5
    tracker.step(0, 3)
    tracker.end(0, reason)
    tracker.finish(error)


def test_the_families_are_vllms_by_name_and_type_and_labels() -> None:
    found = {name: family for name, family in page(build("vllm")).items() if name.startswith("vllm:")}
    assert {name.removeprefix("vllm:"): family.type for name, family in found.items()} == FAMILIES
    for name, family in found.items():
        more = {"finished_reason"} if name == "vllm:request_success" else set()
        assert family.samples
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == {"model_name", "engine"} | more
            assert (sample.labels["model_name"], sample.labels["engine"]) == ("org/model", "0")


def test_without_the_option_no_family_of_vllms_is_there_and_with_it_ours_are_the_same() -> None:
    plain, both = build(), build("vllm")
    for collector in (plain, both):
        ended(collector, "stop")
    ours = [line for line in plain.expose(None, "").body.decode().splitlines() if "furiosa_llm:" in line]
    also = [line for line in both.expose(None, "").body.decode().splitlines() if "furiosa_llm:" in line]
    assert ours == also
    assert not [name for name in page(plain) if name.startswith("vllm:")]


@pytest.mark.parametrize("name", TOP)
def test_the_highest_bucket_is_vllms(name: str) -> None:
    bounds = [s.labels["le"] for s in page(build("vllm"))[f"vllm:{name}"].samples if "le" in s.labels]
    assert [float(bound) for bound in bounds[-2:]] == [TOP[name], float("inf")]


def test_the_parts_of_a_request_are_measured() -> None:
    collector = build("vllm")
    ended(collector, "stop")
    now = values(collector)
    assert {name: now[f"vllm:{name}_seconds_sum"] for name in TIMES} == TIMES
    assert (now["vllm:request_params_n_sum"], now["vllm:request_params_max_tokens_sum"]) == (2, 40)
    assert (now["vllm:prompt_tokens_total"], now["vllm:generation_tokens_total"]) == (7, 4)


TIMES = {
    "time_to_first_token": 1.75,
    "e2e_request_latency": 3.25,
    "request_queue_time": 0.5,
    "request_prefill_time": 1.0,
    "request_decode_time": 1.5,
    "request_inference_time": 2.5,
    "request_time_per_output_token": 0.5,
    "inter_token_latency": 1.5,
}


def test_both_pages_show_the_same_figures() -> None:
    collector = build("vllm")
    ended(collector, "length")
    RequestTracker("two", (collector,))
    now = values(collector, EngineStats(kv_blocks=4, kv_blocks_used=1, prefix_queries=9, prefix_hits=3))
    for name in ("num_requests_waiting", "generation_tokens_total", "prefix_cache_hits_total"):
        assert now[f"vllm:{name}"] == now[f"furiosa_llm:{name}"] > 0
    assert now["vllm:kv_cache_usage_perc"] == now["vllm:gpu_cache_usage_perc"] == 0.25


@pytest.mark.parametrize(
    ("reason", "error", "counted"),
    [
        ("stop", None, "stop"),
        ("tool_calls", None, "stop"),
        ("length", None, "length"),
        ("abort", "the client went away", "abort"),
        ("error", "the engine died", "error"),
    ],
)
def test_a_request_counts_under_how_it_ended(reason: str, error: str | None, counted: str) -> None:
    collector = build("vllm")
    ended(collector, reason, error)
    samples = page(collector)["vllm:request_success"].samples
    assert {s.labels["finished_reason"]: s.value for s in samples} == {
        **dict.fromkeys(("stop", "length", "abort", "error"), 0),
        counted: 1,
    }


def test_what_never_came_to_the_engine_is_not_counted_as_vllm_does_not() -> None:
    collector = build("vllm")
    RequestTracker("one", (collector,)).finish("a key is needed")
    assert {s.value for s in page(collector)["vllm:request_success"].samples} == {0}


def test_openmetrics_has_both_pages() -> None:
    body = build("vllm").expose(None, "application/openmetrics-text; version=1.0.0").body.decode()
    names = {family.name for family in parse_openmetrics(body)}
    assert {"vllm:request_success", "furiosa_llm:request_success"} <= names
