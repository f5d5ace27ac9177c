"""Log lines, traces and metrics of requests to a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.http_server import Server, serving
from support.model_scripts import LLAMA31_WEATHER, SCRIPTED_PLUGIN, write_script

KEY = "a-secret"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TIMEOUT = 30.0
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
DIALECTS = {
    "/v1/responses": {"input": "Hi", "store": False},
    "/v1/messages": {"messages": CHAT["messages"], "max_tokens": 100},
    "/api/chat": {"messages": CHAT["messages"]},
    "/api/generate": {"prompt": "Hi"},
}
"""Requests of other APIs than OpenAI's Chat, by path."""


class Receiver(ThreadingHTTPServer):
    """An OTLP collector over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: Queue[tuple[dict[str, str], ExportTraceServiceRequest]] = Queue()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self, request_id: str) -> tuple[dict[str, str], str, dict[str, Any]]:
        """Return the export's headers, the service name, and the spans of a request by their name."""
        while True:
            headers, request = self.received.get(timeout=TIMEOUT)
            for resource in request.resource_spans:
                spans = [span for scope in resource.scope_spans for span in scope.spans]
                roots = [
                    s for s in spans if _attributes(s).get("http.request.header.x-request-id") == [request_id]
                ]
                if roots:
                    trace = [span for span in spans if span.trace_id == roots[0].trace_id]
                    service = _attributes(resource.resource)["service.name"]
                    return headers, service, {span.name: span for span in trace}


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        request = ExportTraceServiceRequest.FromString(body)
        self.server.received.put(({name.lower(): value for name, value in self.headers.items()}, request))
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _attributes(message: Any) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in message.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return (
        [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)
    )


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def observed(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a scripted engine in a child process, with all logs, metrics and traces enabled."""
    directory: Path = tmp_path_factory.mktemp("script")
    write_script(LLAMA31_WEATHER, directory)
    with serving(
        directory,
        *("--plugin", SCRIPTED_PLUGIN, "--backend", "scripted", "--api-key", KEY),
        *("--enable-metrics", "--metrics-compat", "vllm", "--log-format", "json"),
        *("--otlp-endpoint", receiver.endpoint),
        OTEL_BSP_SCHEDULE_DELAY="50",
        OTEL_SERVICE_NAME="of-the-test",
        OTEL_EXPORTER_OTLP_HEADERS="x-token=abc",
    ) as server:
        yield server


def ask(
    server: Server, request_id: str, method: str = "POST", path: str = "/v1/chat/completions", **more: Any
) -> httpx.Response:
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": request_id, **more.pop("headers", {})}
    body = {"json": {**CHAT, **more}} if method == "POST" else {}
    return httpx.request(method, server.url + path, headers=headers, timeout=TIMEOUT, **body)


def lines(server: Server, logger: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return [line for line in found if line["logger"] == logger]


def access(server: Server, request_id: str) -> dict[str, Any]:
    """Wait for the access-log line of a request, and return it."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        if found := [each for each in lines(server, "fllm.access") if each["request_id"] == request_id]:
            [line] = found
            return line
        time.sleep(0.02)
    raise AssertionError(f"no access-log line of {request_id}:\n{server.log()}")


def generated_tokens(server: Server) -> float:
    """Return the number of tokens that the server has generated, as it tells Prometheus."""
    text = httpx.get(f"{server.url}/metrics", headers={"x-api-key": KEY}, timeout=TIMEOUT).text
    lines = [line for line in text.splitlines() if line.startswith("furiosa_llm:generation_tokens_total")]
    return sum(float(line.split()[-1]) for line in lines)


def test_a_streamed_chat_continues_the_trace_of_the_client(observed: Server, receiver: Receiver) -> None:
    before = time.time_ns()
    response = ask(observed, "traced", headers={"traceparent": PARENT, "tracestate": "v=1"}, stream=True)
    after = time.time_ns()
    assert response.text.endswith("data: [DONE]\n\n")
    headers, service, spans = receiver.spans("traced")
    assert (headers["x-token"], service) == ("abc", "of-the-test")
    assert set(spans) == {"POST /v1/chat/completions", "queue", "prefill", "decode"}
    root = spans.pop("POST /v1/chat/completions")
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == tuple(PARENT.split("-")[1:3])
    assert root.trace_state == "v=1"
    assert {span.parent_span_id for span in spans.values()} == {root.span_id}
    assert before <= root.start_time_unix_nano <= spans["queue"].start_time_unix_nano
    assert spans["queue"].end_time_unix_nano == spans["prefill"].start_time_unix_nano
    assert spans["prefill"].end_time_unix_nano == spans["decode"].start_time_unix_nano
    assert spans["decode"].end_time_unix_nano == root.end_time_unix_nano <= after + 1e9
    about = _attributes(root)
    assert (about["http.response.status_code"], about["gen_ai.operation.name"]) == (200, "chat")
    assert about["gen_ai.usage.output_tokens"] == len(LLAMA31_WEATHER.tokens)
    assert about["gen_ai.usage.input_tokens"] > 0
    assert about["gen_ai.response.finish_reasons"] == ["stop"]


def test_the_access_log_has_tokens_and_times(observed: Server) -> None:
    ask(observed, "logged", stream=True)
    line = access(observed, "logged")
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert line["client"].startswith("key:")
    assert line["generated_tokens"] == len(LLAMA31_WEATHER.tokens)
    assert 0 < line["ttft_seconds"] <= line["seconds"]
    assert (line["stream"], line["finish_reasons"], line["level"]) == (True, ["stop"], "info")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", DIALECTS)
def test_requests_of_every_dialect_are_traced_logged_and_counted(
    observed: Server, receiver: Receiver, path: str, stream: bool
) -> None:
    request_id = f"{path.replace('/', '-')}-{stream}"
    headers = {"x-api-key": KEY, "x-request-id": request_id}
    before = generated_tokens(observed)
    body = {"model": "m", "stream": stream, **DIALECTS[path]}
    response = httpx.post(observed.url + path, headers=headers, json=body, timeout=TIMEOUT)
    assert response.status_code == 200, response.text
    _, _, spans = receiver.spans(request_id)
    assert set(spans) == {f"POST {path}", "queue", "prefill", "decode"}
    about = _attributes(spans[f"POST {path}"])
    assert about["gen_ai.usage.output_tokens"] == len(LLAMA31_WEATHER.tokens)
    line = access(observed, request_id)
    assert (line["path"], line["status"], line["stream"]) == (path, 200, stream)
    assert (line["generated_tokens"], line["finish_reasons"]) == (len(LLAMA31_WEATHER.tokens), ["stop"])
    assert generated_tokens(observed) - before == len(LLAMA31_WEATHER.tokens)


@pytest.mark.parametrize(
    ("request_id", "status", "changed"),
    [
        ("no-key", 401, {"headers": {"authorization": "Bearer wrong"}}),
        ("bad-body", 400, {"temperature": "warm"}),
    ],
)
def test_a_rejected_request_is_logged_with_its_error(
    observed: Server, request_id: str, status: int, changed: dict[str, Any]
) -> None:
    response = ask(observed, request_id, **changed)
    assert (response.status_code, response.headers["x-request-id"]) == (status, request_id)
    line = access(observed, request_id)
    assert (line["status"], line["error"]) == (status, response.json()["error"]["message"])
    assert "wrong" not in observed.log()


def test_health_checks_and_metrics_are_not_in_the_access_log(
    observed: Server,
) -> None:
    for path in ("/health", "/metrics"):
        assert ask(observed, path.strip("/"), "GET", path).status_code == 200
    ask(observed, "models", "GET", "/v1/models")
    assert access(observed, "models")["status"] == 200
    assert {line["path"] for line in lines(observed, "fllm.access")} & {"/health", "/metrics"} == set()


def test_an_unsafe_request_id_is_replaced(observed: Server) -> None:
    forged = ask(observed, "two words", "GET", "/v1/models").headers["x-request-id"]
    assert len(forged) == 32
    assert access(observed, forged)["path"] == "/v1/models"


def test_two_requests_with_the_same_id_are_logged_separately(observed: Server) -> None:
    for _ in range(2):
        assert ask(observed, "twin").status_code == 200
    end = time.monotonic() + TIMEOUT
    while len(twins := [each for each in lines(observed, "fllm.access") if each["request_id"] == "twin"]) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert [line["status"] for line in twins] == [200, 200]


def test_vllm_metric_names_have_the_same_values(observed: Server) -> None:
    ask(observed, "counted")
    page = ask(observed, "page", "GET", "/metrics").text
    samples = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    totals = {name.partition("{")[0]: value for name, value in samples.items()}
    assert totals["vllm:generation_tokens_total"] == totals["furiosa_llm:generation_tokens_total"] != "0.0"


def test_every_line_on_stderr_is_json(observed: Server) -> None:
    logged = [line for line in observed.log().splitlines() if not line.startswith("furiosa-llm: serving")]
    assert logged
    assert all(json.loads(line)["message"] for line in logged)
