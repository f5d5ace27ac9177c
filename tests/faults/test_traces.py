"""Logs and traces under faults: request ids in the engine's log, and trace endpoints that fail."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.fault_server import ask, assert_healthy, chat_body, options, wait_until
from support.fault_table import Seen, fault
from support.http_server import Server, serving

from fllm.testing.echo import echo_model

LOST = "traces are lost"
REQUESTS = 20


@pytest.fixture(scope="module")
def unresponsive() -> Iterator[str]:
    """Return an endpoint that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def traced(model: Path, endpoint: str) -> tuple[str | Path, ...]:
    return (model, *options(), "--log-format", "json", "--otlp-endpoint", endpoint)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def send_requests(server: Server, times: int = REQUESTS) -> None:
    for _ in range(times):
        assert ask(server, "hello", tokens=1).status_code == 200


@fault(
    "Network",
    "The trace endpoint is down, and a batch fails in the engine",
    must="Requests are served; one line reports lost traces; the engine's log has the request's id",
)
def test_a_trace_endpoint_that_is_down(seen: Seen, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{closed_port()}"
    fast = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with serving(*traced(echo_model(tmp_path / "model"), endpoint), **fast) as server:
        send_requests(server)
        wait_until(lambda: LOST in server.log(), "the line that traces are lost")
        send_requests(server)
        response = httpx.post(
            f"{server.api}/chat/completions",
            json=chat_body("ENGINE RAISES"),
            headers={"x-request-id": "failing-request"},
            timeout=60,
        )
        assert response.status_code == 500
        wait_until(lambda: '"logger":"fllm.engine"' in server.log(), "the engine's log line")
        assert_healthy(server)
        lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
        assert server.log().count(LOST) == 1
        assert not [line for line in lines if line["logger"].startswith("opentelemetry")]
        engine_lines = [line for line in lines if line["logger"] == "fllm.engine"]
        assert [line["request_id"] for line in engine_lines] == ["failing-request"]
        assert "exception" in engine_lines[0]
    seen(f"{2 * REQUESTS} requests were served; one line reported lost traces; the engine's line had the id")


@fault(
    "Shutdown",
    "SIGTERM while the trace endpoint accepts connections and never responds",
    must="Exit 0; unsent traces delay the exit by a few seconds at most",
)
def test_an_endpoint_that_hangs(seen: Seen, tmp_path: Path, unresponsive: str) -> None:
    with serving(*traced(echo_model(tmp_path / "model"), unresponsive)) as server:
        send_requests(server)
        began = time.monotonic()
        assert server.stop() == 0, server.log()
        took = time.monotonic() - began
        assert took < 20
    seen(f"exit 0 after {took:.1f} s")
