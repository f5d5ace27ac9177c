"""What the parts of plugins cost, in the metrics and in ``furiosa-llm top``."""

from __future__ import annotations

import re
from typing import Any

from litestar import Request, asgi, get, post
from litestar.types import Receive, Scope, Send
from rich.console import Console

import fllm
from fllm import Collector, EngineStats, MetricsContext, PluginUsage, RequestRecord
from fllm.plugins.listing import list_plugins
from fllm.testing import ScriptedServer, plugins_with
from fllm_metrics.prometheus import PrometheusCollector
from fllm_metrics.top.client import Snapshot
from fllm_metrics.top.frame import Frame
from fllm_metrics.top.history import History
from fllm_metrics.top.metrics_page import parse_page

USAGE = PluginUsage(
    plugin="mine", kind="tool-call parser", name="call", calls=3, errors=1, seconds=0.5, events=7
)


class Failing(Collector):
    def on_http_request_end(self, request: RequestRecord) -> None:
        raise ValueError("broken")


class Mine:
    @fllm.hookimpl
    def fllm_routes(self) -> list[object]:
        @get("/mine", sync_to_thread=False)
        def mine() -> str:
            return "12345"

        @post("/broken")
        async def broken(request: Request[Any, Any, Any]) -> str:
            raise ValueError(await request.json())

        @asgi("/bare", copy_scope=True)
        async def bare(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})  # type: ignore[typeddict-item]

        return [mine, broken, bare]


def exposed(*usage: PluginUsage) -> str:
    collector = PrometheusCollector(
        MetricsContext(model_name="m", max_model_len=16, plugin_usage=lambda: usage)
    )
    return collector.expose(None, "").body.decode()


def test_each_used_part_has_series() -> None:
    assert "plugin_" not in exposed()
    page = exposed(USAGE)
    labels = '{kind="tool-call parser",name="call",plugin="mine"}'
    assert f"furiosa_llm:plugin_seconds_total{labels} 0.5" in page
    assert f"furiosa_llm:plugin_errors_total{labels} 1.0" in page
    assert f"furiosa_llm:plugin_events_total{labels} 7.0" in page
    assert "plugin_sent_bytes_total{" not in page


def test_grammars_have_series_once_they_were_compiled() -> None:
    collector = PrometheusCollector(MetricsContext(model_name="m", max_model_len=16))
    assert b"grammar_" not in collector.expose(EngineStats(), "").body
    page = collector.expose(EngineStats(grammar_compilations=2, grammar_seconds=0.5), "").body.decode()
    assert 'furiosa_llm:grammar_compilations_total{model_name="m"} 2.0' in page
    assert 'furiosa_llm:grammar_compile_seconds_total{model_name="m"} 0.5' in page


def test_top_shows_the_parts_that_were_used() -> None:
    history = History()
    for at, calls in ((0.0, 3), (10.0, 23)):
        usage = PluginUsage(plugin="mine", kind="routes", name="mine", calls=calls, seconds=calls / 10)
        snapshot = Snapshot(at=at, page=parse_page(exposed(usage, USAGE)))
        history.add(snapshot)
    console = Console(width=100, record=True, force_terminal=False)
    console.print(Frame("http://x", snapshot, history, 1.0))
    text = console.export_text()
    assert re.search(r"routes mine +2\S* +20%", text)
    assert re.search(r"tool-call parser call .* 1\n", text)


def test_routes_and_collectors_are_counted() -> None:
    plugins = plugins_with(Mine(), installed=False)
    server = ScriptedServer(loaded=plugins, collectors=[Failing()])
    assert server.ask("GET", "/mine").content == b"12345"
    assert server.ask("POST", "/broken", json={"a": 1}).status == 500
    assert server.ask("GET", "/bare").status == 204
    used = {usage.kind: usage for usage in plugins.usage.used()}
    assert list_plugins(plugins).usage == plugins.usage.used()
    routes = used["routes"]
    assert (routes.calls, routes.errors, routes.bytes_in) == (3, 1, len(b'{"a": 1}'))
    assert routes.bytes_out > 5
    assert (used["collector"].name, used["collector"].errors) == ("Failing", 3)
    assert used["collector"].calls >= 2
