from __future__ import annotations

import asyncio

import pytest
from support.api_fakes import FakeBackend, a_server

from fllm import BackendUnavailable, Collector, EngineStats, MetricsContext, hookimpl
from fllm.testing import plugins_with
from fllm_api.app import create_app
from fllm_api.metrics import collector_ticker
from fllm_api.metrics.isolated_collector import IsolatedCollector


class Clock(Collector):
    """A collector that records the states of the engine."""

    def __init__(self) -> None:
        self.heard: list[EngineStats | None] = []

    def on_interval(self, stats: EngineStats | None) -> None:
        self.heard.append(stats)


@pytest.mark.parametrize("health", [None, BackendUnavailable("gone")])
def test_collectors_are_called_while_the_application_lives(
    monkeypatch: pytest.MonkeyPatch, health: Exception | None
) -> None:
    monkeypatch.setattr(collector_ticker, "INTERVAL_SECONDS", 0.001)
    clock, backend = Clock(), FakeBackend()
    backend.health = health
    app = create_app(a_server(backend=backend, collectors=[clock]))

    async def live() -> int:
        async with app.lifespan():
            while len(clock.heard) < 3:
                await asyncio.sleep(0.001)
        return len(clock.heard)

    heard = asyncio.run(live())
    assert clock.heard[0] == (EngineStats(running=1) if health is None else None)
    assert len(clock.heard) == heard


class Broken(Clock):
    """A clock that raises at each tick."""

    def on_interval(self, stats: EngineStats | None) -> None:
        raise ValueError("broken")


def test_a_collector_that_raises_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(collector_ticker, "INTERVAL_SECONDS", 0.001)
    clock = Clock()
    app = create_app(a_server(collectors=[Broken(), clock]))

    async def live() -> None:
        async with app.lifespan(), asyncio.timeout(30):
            while len(clock.heard) < 3:
                await asyncio.sleep(0.001)

    asyncio.run(live())
    [record] = caplog.records
    assert record.getMessage() == f"collector {__name__}.Broken.on_interval failed; this is logged once"


def test_the_engine_is_not_polled_if_no_collector_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_ticker, "INTERVAL_SECONDS", 0.0)
    polled: list[FakeBackend] = []

    class Polled(FakeBackend):
        async def status(self) -> EngineStats:
            polled.append(self)
            return EngineStats()

    async def live(collector: Collector) -> int:
        app = create_app(a_server(backend=Polled(), collectors=[collector]))
        async with app.lifespan():
            await asyncio.sleep(0.05)
        return len(polled)

    assert asyncio.run(live(Collector())) == 0
    assert asyncio.run(live(Clock())) > 0


class Offers:
    @hookimpl
    def fllm_collectors(self, context: MetricsContext) -> list[Collector]:
        return [Broken()]


def test_the_log_and_the_report_name_the_plugin_of_a_collector_that_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugins = plugins_with(Offers(), installed=False)
    [collector] = plugins.collectors(MetricsContext(model_name="m", max_model_len=16))
    IsolatedCollector(collector, plugins.owner_of(collector)).on_interval(None)
    [report] = plugins.reports
    name = f"collector {__name__}.Broken.on_interval"
    assert caplog.messages == [f"{name} of plugin {report.title} failed; this is logged once"]
    assert report.error == f"{name} failed: ValueError: broken"
