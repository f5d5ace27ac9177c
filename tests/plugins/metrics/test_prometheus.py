"""The page that Prometheus scrapes."""

import math
import re
import subprocess
import sys

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from fllm import CacheTierStats, EngineStats, MetricsContext, MetricsExporter
from fllm.pipeline.request_tracker import RequestTracker
from fllm.values import ModelStats
from fllm_metrics.prometheus import PrometheusCollector

PREFIX = "furiosa_llm:"

# Names, types and buckets as the dashboards of the vendor's server know them.
TIMES = {
    "time_to_first_token_seconds": "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10",
    "time_per_output_token_seconds": "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5",
    "e2e_request_latency_seconds": "0.3 0.5 0.8 1 1.5 2 2.5 5 10 15 20 30 40 50 60",
}
LENGTHS = ("request_prompt_tokens", "request_generation_tokens", "request_params_max_tokens")
CANON = {
    "num_requests_running": "gauge",
    "num_requests_waiting": "gauge",
    "request_received": "counter",
    "request_success": "counter",
    "request_failure": "counter",
    "prompt_tokens": "counter",
    "generation_tokens": "counter",
} | dict.fromkeys((*TIMES, *LENGTHS), "histogram")
OURS = {
    "engine_up": "gauge",
    "request_outcome": "counter",
    "kv_cache_usage": "gauge",
    "prefix_cache_queries": "counter",
    "prefix_cache_hits": "counter",
    "preemptions": "counter",
    "spec_decode_num_draft_tokens": "counter",
    "spec_decode_num_accepted_tokens": "counter",
    "request_queue_time_seconds": "histogram",
    "inter_token_latency_seconds": "histogram",
}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def build(max_model_len: int = 300, model_name: str = "org/model") -> PrometheusCollector:
    return PrometheusCollector(MetricsContext(model_name=model_name, max_model_len=max_model_len))


def page(collector: PrometheusCollector, status: EngineStats | None = None) -> dict[str, Metric]:
    text = collector.expose(status, "").body.decode()
    return {family.name: family for family in parse(text)}


def values(collector: PrometheusCollector, status: EngineStats | None = None) -> dict[str, float]:
    """Every sample but the buckets, by its name without the prefix."""
    samples = (sample for family in page(collector, status).values() for sample in family.samples)
    return {s.name.removeprefix(PREFIX): s.value for s in samples if not s.name.endswith("_bucket")}


def bounds(family: Metric) -> list[float]:
    return [float(s.labels["le"]) for s in family.samples if s.name.endswith("_bucket")]


def served(collector: PrometheusCollector, clock: Clock) -> RequestTracker:
    """A request of 7 prompt tokens: first token after 0.5 s, then 2 and 1 more, 0.25 s apart."""
    tracker = RequestTracker("one", (collector,), clock)
    tracker.prompt_tokens, tracker.max_tokens = 7, 40
    clock.now += 0.5
    tracker.step(0, 1, queue_time=0.125)
    for tokens in (2, 1):
        clock.now += 0.25
        tracker.step(0, tokens)
    return tracker


def test_the_page_has_the_known_families_and_ours_and_those_of_the_process() -> None:
    families = page(build())
    named = {n.removeprefix(PREFIX): f.type for n, f in families.items() if n.startswith(PREFIX)}
    assert named == CANON | OURS
    others = {name for name in families if not name.startswith(PREFIX)}
    assert {"python_info", "python_gc_collections", "process_cpu_seconds"} <= others
    assert all(name.startswith(("python_", "process_")) for name in others)


def test_the_type_lines_say_counter_where_the_name_ends_in_total() -> None:
    text = build().expose(None, "").body.decode()
    for name, kind in (CANON | OURS).items():
        total = "_total" if kind == "counter" else ""
        assert f"# TYPE {PREFIX}{name}{total} {kind}\n" in text


def test_every_sample_of_ours_bears_the_models_name_and_no_other_label() -> None:
    for name, family in page(build()).items():
        if name.startswith(PREFIX) and name != f"{PREFIX}request_outcome":
            for sample in family.samples:
                assert {k: v for k, v in sample.labels.items() if k != "le"} == {"model_name": "org/model"}


@pytest.mark.parametrize("name", TIMES)
def test_times_are_divided_as_dashboards_expect(name: str) -> None:
    wanted = [float(bound) for bound in TIMES[name].split()]
    assert bounds(page(build())[PREFIX + name]) == [*wanted, math.inf]


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize(
    ("max_model_len", "wanted"),
    [(1, [1]), (99, [1, 2, 5, 10, 20, 50]), (2000, [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000])],
)
def test_lengths_are_divided_up_to_the_context(name: str, max_model_len: int, wanted: list[float]) -> None:
    assert bounds(page(build(max_model_len))[PREFIX + name]) == [*wanted, math.inf]


def test_all_series_are_there_at_zero_before_the_first_request() -> None:
    ours = {name for name in values(build()) if not name.startswith(("python_", "process_"))}
    kinds = {"gauge": [""], "counter": ["_total"], "histogram": ["_count", "_sum"]}
    assert ours == {name + end for name, kind in (CANON | OURS).items() for end in kinds[kind]}
    assert {values(build())[name] for name in ours} == {0}


def test_no_sample_has_a_creation_time() -> None:
    for accept in ("", "application/openmetrics-text; version=1.0.0"):
        assert b"_created" not in build().expose(None, accept).body


def test_a_request_waits_then_runs_then_is_gone() -> None:
    collector, clock = build(), Clock()
    tracker = RequestTracker("one", (collector,), clock)
    now = values(collector)
    assert (now["num_requests_waiting"], now["num_requests_running"]) == (1, 0)
    assert now["request_received_total"] == 1
    tracker.step(0, 1)
    now = values(collector)
    assert (now["num_requests_waiting"], now["num_requests_running"]) == (0, 1)
    assert now["request_success_total"] == 0
    tracker.finish()
    now = values(collector)
    assert (now["num_requests_waiting"], now["num_requests_running"]) == (0, 0)
    assert (now["request_success_total"], now["request_failure_total"]) == (1, 0)


def test_prompt_tokens_and_the_first_tokens_time_count_once_the_first_token_is_here() -> None:
    collector, clock = build(), Clock()
    served(collector, clock)
    now = values(collector)
    assert now["prompt_tokens_total"] == 7
    assert (now["time_to_first_token_seconds_count"], now["time_to_first_token_seconds_sum"]) == (1, 0.5)
    assert now["request_queue_time_seconds_sum"] == 0.125
    assert now["e2e_request_latency_seconds_count"] == 0


def test_each_gap_is_one_sample_however_many_tokens_it_brought() -> None:
    collector, clock = build(), Clock()
    served(collector, clock).finish()
    now = values(collector)
    assert now["generation_tokens_total"] == 4
    for name in ("time_per_output_token_seconds", "inter_token_latency_seconds"):
        assert (now[f"{name}_count"], now[f"{name}_sum"]) == (2, 0.5)


def test_a_gap_is_in_the_buckets_of_all_bounds_that_it_does_not_exceed() -> None:
    collector, clock = build(), Clock()
    tracker = RequestTracker("one", (collector,), clock)
    for seconds in (0, 0.0005, 0.01, 0.2, 9):
        clock.now = 100 + seconds
        tracker.step(0, 1)
    tracker.finish()
    for name in ("time_per_output_token_seconds", "inter_token_latency_seconds"):
        family = page(collector)[PREFIX + name]
        counts = {float(s.labels["le"]): s.value for s in family.samples if s.name.endswith("_bucket")}
        assert list(counts.values()) == sorted(counts.values())
        assert (counts[0.01], counts[0.2], counts[2.5], counts[math.inf]) == (2, 3, 3, 4)


def test_generated_tokens_count_while_the_request_runs() -> None:
    collector, clock = build(), Clock()
    tracker = served(collector, clock)
    clock.now += 1
    tracker.step(0, 5)
    assert values(collector)["generation_tokens_total"] == 9


def test_a_finished_request_is_measured_as_a_whole() -> None:
    collector, clock = build(), Clock()
    served(collector, clock).finish()
    now = values(collector)
    assert (now["e2e_request_latency_seconds_count"], now["e2e_request_latency_seconds_sum"]) == (1, 1)
    assert now["request_prompt_tokens_sum"] == 7
    assert now["request_generation_tokens_sum"] == 4
    assert now["request_params_max_tokens_sum"] == 40


def test_a_request_without_a_maximum_may_have_the_rest_of_the_context() -> None:
    collector, clock = build(max_model_len=300), Clock()
    tracker = served(collector, clock)
    tracker.max_tokens = None
    tracker.finish()
    assert values(collector)["request_params_max_tokens_sum"] == 293


@pytest.mark.parametrize("began", [False, True])
def test_a_failed_request_counts_as_a_failure_and_is_not_measured(began: bool) -> None:
    collector, clock = build(), Clock()
    tracker = served(collector, clock) if began else RequestTracker("one", (collector,), clock)
    tracker.finish(error="the engine died")
    now = values(collector)
    assert (now["request_success_total"], now["request_failure_total"]) == (0, 1)
    assert (now["num_requests_waiting"], now["num_requests_running"]) == (0, 0)
    assert now["generation_tokens_total"] == (4 if began else 0)
    for name in ("e2e_request_latency_seconds", *LENGTHS):
        assert now[f"{name}_count"] == 0


def test_the_engines_metrics_come_from_its_status() -> None:
    status = EngineStats(
        kv_blocks=8,
        kv_blocks_used=2,
        prefix_queries=100,
        prefix_hits=60,
        preemptions=3,
        drafted=50,
        accepted=40,
    )
    now = values(build(), status)
    assert now["kv_cache_usage"] == 0.25
    assert now["prefix_cache_queries_total"] == 100
    assert now["prefix_cache_hits_total"] == 60
    assert now["preemptions_total"] == 3
    assert now["spec_decode_num_draft_tokens_total"] == 50
    assert now["spec_decode_num_accepted_tokens_total"] == 40


def test_tiers_below_the_kv_cache_have_series_of_their_own_if_there_are_any() -> None:
    ram, disk = (
        CacheTierStats(hits=5, used_bytes=7),
        CacheTierStats(misses=6, limit_bytes=8, dropped_blocks=9),
    )
    page = build().expose(EngineStats(cache_tiers={"ram": ram, "disk": disk}), "").body.decode()
    samples = dict(re.findall(r'furiosa_llm:(kv_offload_\w+\{.*tier="\w+")\} (\S+)', page))
    found = {re.sub(r"\{.*tier=", "=", name): float(value) for name, value in samples.items()}
    assert found['kv_offload_hits_total="ram"'] == 5
    assert found['kv_offload_misses_total="disk"'] == 6
    assert found['kv_offload_used_bytes="ram"'] == 7
    assert found['kv_offload_limit_bytes="disk"'] == 8
    assert found['kv_offload_dropped_blocks_total="disk"'] == 9
    assert found['kv_offload_read_bytes_total="disk"'] == found['kv_offload_written_bytes_total="disk"'] == 0
    assert "kv_offload" not in build().expose(EngineStats(), "").body.decode()


def test_an_engine_that_does_not_respond_keeps_its_last_values_and_a_new_one_starts_at_zero() -> None:
    collector = build()
    values(collector, EngineStats(prefix_queries=100))
    assert values(collector, None)["prefix_cache_queries_total"] == 100
    assert values(collector, EngineStats())["prefix_cache_queries_total"] == 0


def test_two_collectors_share_nothing() -> None:
    first, second = build(model_name="first"), build(model_name="second")
    RequestTracker("one", (first,), Clock())
    assert values(first)["request_received_total"] == 1
    assert values(second)["request_received_total"] == 0


def test_plain_text_is_the_default() -> None:
    assert build().expose(None, "").content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert build().expose(None, "*/*").content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_openmetrics_keeps_the_names() -> None:
    accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.1"
    shown = build().expose(None, accept)
    assert shown.content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family.type for family in parse_openmetrics(shown.body.decode())}
    assert {PREFIX + name: kind for name, kind in (CANON | OURS).items()}.items() <= families.items()


def test_an_engine_is_up_while_it_responds() -> None:
    collector = build()
    ups = [values(collector, status)["engine_up"] for status in (EngineStats(), None, EngineStats())]
    assert ups == [1, 0, 1]


def test_it_can_be_scraped() -> None:
    assert isinstance(build(), MetricsExporter)


def test_prometheus_client_is_imported_only_where_there_is_a_scraper() -> None:
    script = """
import sys
from fllm import MetricsConfig, MetricsContext
from fllm_metrics.plugin import fllm_collectors
for enabled in (False, True):
    config = MetricsConfig(enabled=enabled, log_stats=not enabled, log_requests=False)
    found = fllm_collectors(MetricsContext(model_name="m", max_model_len=1, config=config))
    print([type(collector).__name__ for collector in found], "prometheus_client" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["['StatsLog'] False", "['PrometheusCollector'] True"]


def several_models() -> PrometheusCollector:
    context = MetricsContext(model_name="a", max_model_len=300, model_names=("a", "b"))
    return PrometheusCollector(context)


def finish_request(collector: PrometheusCollector, model: str) -> None:
    tracker = RequestTracker("one", (collector,), deferred=True)
    if model:
        tracker.choose_model(model)
    tracker.finish()


def by_model(family: Metric) -> dict[str, float]:
    return {sample.labels["model_name"]: sample.value for sample in family.samples}


def test_several_models_have_their_own_series_in_one_family() -> None:
    collector = several_models()
    for model in ("a", "b", "b"):
        finish_request(collector, model)
    families = page(collector)
    assert by_model(families[f"{PREFIX}request_received"]) == {"a": 1, "b": 2}
    finish_request(collector, "")
    families = page(collector)
    assert by_model(families[f"{PREFIX}request_received"]) == {"a": 1, "b": 2, "": 1}


def test_the_state_of_models_that_are_loaded_on_demand_is_exposed() -> None:
    collector = several_models()
    engine = EngineStats(kv_blocks=4, kv_blocks_used=1)
    loaded = ModelStats(state="loaded", memory=1000, loads=2, in_flight=3, engine=engine)
    status = EngineStats(models={"a": loaded, "b": ModelStats(state="unloaded", waiting=5)})
    families = page(collector, status)
    assert {
        name.removeprefix(PREFIX): by_model(families[name])
        for name in families
        if name.startswith(f"{PREFIX}model_")
    } == {
        "model_loaded": {"a": 1, "b": 0},
        "model_failed": {"a": 0, "b": 0},
        "model_memory_bytes": {"a": 1000, "b": 0},
        "model_requests": {"a": 3, "b": 0},
        "model_waiting_requests": {"a": 0, "b": 5},
        "model_loads": {"a": 2, "b": 0},
    }
    assert by_model(families[f"{PREFIX}engine_up"]) == {"a": 1}, "b has no engine, which is no fault"
    assert by_model(families[f"{PREFIX}kv_cache_usage"]) == {"a": 0.25, "b": 0}
