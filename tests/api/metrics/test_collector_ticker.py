from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from support.api_fakes import FakeBackend, a_server

from fllm import BackendUnavailable, EngineStats, RequestRecord
from fllm_api.app import create_app
from fllm_api.metrics import collector_ticker


class Clock:
    """A collector that wants to be called once a second."""

    def __init__(self) -> None:
        self.heard: list[EngineStats | None] = []

    def tick(self, status: EngineStats | None) -> None:
        self.heard.append(status)

    def received(self, request: RequestRecord) -> None: ...
    def started(self, request: RequestRecord) -> None: ...
    def progressed(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None: ...
    def finished(self, request: RequestRecord) -> None: ...


@pytest.mark.parametrize("health", [None, BackendUnavailable("gone")])
def test_collectors_are_called_while_the_application_lives(
    monkeypatch: pytest.MonkeyPatch, health: Exception | None
) -> None:
    monkeypatch.setattr(collector_ticker, "PERIOD", 0.001)
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

    def tick(self, status: EngineStats | None) -> None:
        raise ValueError("broken")


def test_a_collector_that_raises_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(collector_ticker, "PERIOD", 0.001)
    clock = Clock()
    app = create_app(a_server(collectors=[Broken(), clock]))

    async def live() -> None:
        async with app.lifespan(), asyncio.timeout(30):
            while len(clock.heard) < 3:
                await asyncio.sleep(0.001)

    asyncio.run(live())
    [record] = caplog.records
    assert record.getMessage() == f"collector {__name__}.Broken.tick failed; this is logged once"
