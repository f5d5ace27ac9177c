"""The collector, with a socket that receives datagrams like StatsD."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest
from fllm_statsd import plugin
from fllm_statsd.collector import StatsdCollector
from fllm_statsd.options import StatsdOptions
from fllm_statsd.sender import MAX_DATAGRAM_BYTES, Sender

from fllm import EngineStats, MetricsContext, RequestRecord, UserError
from fllm.testing import CollectorContract, plugins_with

DONE = {
    "request_id": "1",
    "received_at": 10.0,
    "first_token_at": 10.25,
    "finished_at": 12.0,
    "queue_time": 0.125,
    "prompt_tokens": 7,
    "generated_tokens": 3,
    "max_tokens": 3,
    "error": None,
}


@pytest.fixture
def statsd() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(5)
        yield listening


class TestCollector(CollectorContract):
    """Runs without a StatsD server."""

    created: ClassVar[list[StatsdCollector]] = []

    @classmethod
    def collector(cls) -> StatsdCollector:
        cls.created.append(StatsdCollector(StatsdOptions(host="127.0.0.1"), "m"))
        return cls.created[-1]

    @classmethod
    def teardown_class(cls) -> None:
        for collector in cls.created:
            collector.close()


def options_of(statsd: socket.socket) -> StatsdOptions:
    return StatsdOptions(host="127.0.0.1", port=statsd.getsockname()[1], prefix="llm.eu")


def a_request(**fields: object) -> RequestRecord:
    return cast(RequestRecord, SimpleNamespace(**(DONE | fields)))


def lines(statsd: socket.socket) -> list[str]:
    """Return the lines of the next datagram."""
    return statsd.recv(2**16).decode().split("\n")


def test_a_request_becomes_one_datagram_at_the_next_interval(statsd: socket.socket) -> None:
    collector = StatsdCollector(options_of(statsd), "org/model-1.5")
    request = a_request()
    collector.on_request_start(request)
    collector.on_first_token(request)
    collector.on_progress(request, [0.02, 0.03], 3)
    collector.on_request_end(request)
    collector.on_interval(EngineStats(running=1, waiting=2, kv_blocks=8, kv_blocks_used=2))
    assert [line.removeprefix("llm.eu.org_model-1_5.") for line in lines(statsd)] == [
        "requests:1|c",
        "prompt_tokens:7|c",
        "queued:125.000|ms",
        "first_token:250.000|ms",
        "generated_tokens:3|c",
        "token_gap:20.000|ms",
        "token_gap:30.000|ms",
        "duration:2000.000|ms",
        "running:1|g",
        "waiting:2|g",
        "kv_cache_used:0.25|g",
    ]
    collector.close()


def test_a_failure_is_counted_and_an_unavailable_engine_has_no_gauges(statsd: socket.socket) -> None:
    collector = StatsdCollector(options_of(statsd), "m")
    collector.on_request_end(a_request(first_token_at=None, error="the engine died"))
    collector.on_interval(None)
    assert lines(statsd) == ["llm.eu.m.duration:2000.000|ms", "llm.eu.m.errors:1|c"]
    collector.close()


def test_no_datagram_is_longer_than_a_packet_and_no_line_is_lost(statsd: socket.socket) -> None:
    collector = StatsdCollector(options_of(statsd), "m")
    collector.on_progress(a_request(), [0.001] * 200, 200)
    collector.close()
    found: list[str] = []
    while len(found) < 201:
        datagram = statsd.recv(2**16)
        assert len(datagram) <= MAX_DATAGRAM_BYTES
        found += datagram.decode().split("\n")
    assert found == ["llm.eu.m.generated_tokens:200|c", *["llm.eu.m.token_gap:1.000|ms"] * 200]


def test_a_missing_server_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    sender = Sender("127.0.0.1", port, "p")
    for _ in range(5):
        sender.count("requests", 1)
        sender.flush()
    sender.close()
    assert [record.getMessage()[:17] for record in caplog.records] == ["metrics are lost:"]


def test_the_plugin_loads() -> None:
    assert plugins_with(plugin, installed=False).reports[-1].hooks == ["fllm_collectors"]


def test_its_options_have_defaults() -> None:
    assert StatsdOptions() == StatsdOptions(host="localhost", port=8125, prefix="fllm")


def test_the_collector_has_the_options(statsd: socket.socket) -> None:
    given = {"fllm_statsd.plugin": {"host": "127.0.0.1", "port": statsd.getsockname()[1], "prefix": "llm.eu"}}
    plugins = plugins_with(plugin, installed=False, options=given)
    [collector] = plugins.collectors(MetricsContext(model_name="m", max_model_len=4096))
    collector.on_request_end(a_request(first_token_at=None))
    collector.on_interval(None)
    assert lines(statsd) == ["llm.eu.m.duration:2000.000|ms"]


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match=r"port=0: invalid value; expected integer, at least 1"):
        plugins_with(plugin, installed=False, options={"fllm_statsd.plugin": {"port": 0}})
