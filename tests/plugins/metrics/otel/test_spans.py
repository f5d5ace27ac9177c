"""The spans of a request."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from fllm import Collector
from fllm.pipeline.request_tracker import RequestTracker
from fllm.testing import CollectorContract
from fllm_metrics.otel.spans import SpanCollector

NOW = 1_800_000_000_000_000_000
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def a_collector() -> tuple[SpanCollector, InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return SpanCollector(provider, "org/model", clock=lambda: NOW), exporter


class TestContract(CollectorContract):
    @classmethod
    def collector(cls) -> Collector:
        return a_collector()[0]


def spans_of(
    error: str | None = None,
    *,
    status: int | None = 200,
    steps: int = 2,
    submitted: bool = True,
    **about: Any,
) -> dict[str, ReadableSpan]:
    """Submitted after 0.25 s, queued for 0.5 s, its first token 1 s after that, its last 1.5 s later."""
    collector, exporter = a_collector()
    clock = Clock()
    about = {"method": "POST", "path": "/v1/chat/completions", "client": "ip:10.0.0.1", **about}
    tracker = RequestTracker("abc", (collector,), clock, **about)
    clock.now += 0.25
    if submitted:
        tracker.submit(prompt_tokens=7, max_tokens=40, streamed=True)
    for _ in range(steps):
        clock.now += 1.5
        tracker.step(0, 2, queue_time=0.5, cached=3)
    if steps:
        tracker.end(0, "error" if error else "stop")
    tracker.status = status
    tracker.finish(error)
    return {span.name: span for span in exporter.get_finished_spans()}


def seconds(span: ReadableSpan) -> tuple[float, float]:
    """Begin and end, counted from the request's end."""
    assert span.start_time is not None
    assert span.end_time is not None
    return ((span.start_time - NOW) / 1e9, (span.end_time - NOW) / 1e9)


def test_a_request_has_a_span_for_itself_and_one_for_each_phase() -> None:
    spans = spans_of()
    assert {name: seconds(span) for name, span in spans.items()} == {
        "POST /v1/chat/completions": (-3.25, 0),
        "queue": (-3.0, -2.5),
        "prefill": (-2.5, -1.5),
        "decode": (-1.5, 0),
    }
    root = spans.pop("POST /v1/chat/completions")
    assert root.kind is SpanKind.SERVER
    assert root.parent is None
    assert {span.parent.span_id for span in spans.values() if span.parent} == {root.context.span_id}
    assert {span.context.trace_id for span in spans.values()} == {root.context.trace_id}


def test_the_model_is_that_of_the_request() -> None:
    collector, exporter = a_collector()
    tracker = RequestTracker("abc", (collector,), deferred=True)
    tracker.choose_model("org/other")
    tracker.submit(prompt_tokens=1, max_tokens=1)
    tracker.finish()
    attributes = exporter.get_finished_spans()[-1].attributes or {}
    names = ("gen_ai.request.model", "gen_ai.response.model")
    assert [attributes[name] for name in names] == ["org/other", "org/other"]


def test_its_attributes_are_those_of_the_conventions() -> None:
    attributes = dict(spans_of()["POST /v1/chat/completions"].attributes or {})
    assert attributes == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "http.request.header.x-request-id": ("abc",),
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "furiosa_llm",
        "gen_ai.request.model": "org/model",
        "gen_ai.response.model": "org/model",
        "gen_ai.request.max_tokens": 40,
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 1.75,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "furiosa_llm.client": "ip:10.0.0.1",
    }


def test_a_completion_is_not_a_chat() -> None:
    [root, *_] = [span for span in spans_of(path="/v1/completions").values() if span.kind is SpanKind.SERVER]
    assert (root.attributes or {})["gen_ai.operation.name"] == "text_completion"


def test_the_clients_trace_is_continued() -> None:
    context = {"traceparent": PARENT, "tracestate": "vendor=1"}
    root = spans_of(trace_context=context)["POST /v1/chat/completions"]
    assert f"{root.context.trace_id:032x}" == PARENT.split("-")[1]
    assert root.parent is not None
    assert f"{root.parent.span_id:016x}" == PARENT.split("-")[2]
    assert root.context.trace_state["vendor"] == "1"


def test_what_the_client_does_not_sample_is_not_sent() -> None:
    assert spans_of(trace_context={"traceparent": PARENT[:-1] + "0"}) == {}


@pytest.mark.parametrize("header", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\xff" * 999])
def test_a_broken_header_starts_a_new_trace(header: str) -> None:
    root = spans_of(trace_context={"traceparent": header, "tracestate": header})["POST /v1/chat/completions"]
    assert root.parent is None


@pytest.mark.parametrize(
    ("error", "status", "is_error", "kind"),
    [
        ("max_tokens: not a number", 400, False, "400"),
        ("too many", 429, False, "429"),
        ("the engine is gone", 503, True, "503"),
        ("the engine died", 200, True, "error"),
        (None, 200, False, None),
    ],
)
def test_an_error_is_one_unless_it_is_the_clients(
    error: str | None, status: int, is_error: bool, kind: str | None
) -> None:
    root = spans_of(error, status=status)["POST /v1/chat/completions"]
    assert (root.status.status_code is StatusCode.ERROR) == is_error
    assert (root.attributes or {}).get("error.type") == kind
    assert root.status.description == (error if is_error else None)


def test_a_client_that_disconnects_early_leaves_only_a_queue_span() -> None:
    spans = spans_of("the client went away", status=None, steps=0)
    assert set(spans) == {"POST /v1/chat/completions", "queue"}
    assert (spans["POST /v1/chat/completions"].attributes or {})["error.type"] == "cancelled"


def test_a_rejected_request_has_no_phases() -> None:
    spans = spans_of("a key is needed", status=401, steps=0, submitted=False)
    assert set(spans) == {"POST /v1/chat/completions"}
    assert "gen_ai.usage.input_tokens" not in (spans["POST /v1/chat/completions"].attributes or {})
