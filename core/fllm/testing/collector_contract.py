"""The contract that every metrics collector must pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any, ClassVar

from fllm.containment import mapped
from fllm.errors import format_error
from fllm.interfaces import Collector, MetricsExporter, MetricsPage, RequestRecord
from fllm.pipeline.request_tracker import RequestTracker
from fllm.values import EngineStats

FIELDS = [name for name in vars(RequestRecord) if not name.startswith("_")]
ALL_STATS = (
    None,
    EngineStats(),
    EngineStats(running=3, waiting=2, kv_blocks=10, kv_blocks_used=4, prefix_queries=7),
)
ACCEPT_HEADERS = ("", "text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0", "*/*")
CONCURRENT_REQUESTS = 500


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class CollectorContract:
    """Every collector passes this: it never raises, blocks, or modifies requests."""

    timeout: ClassVar[float] = 30.0
    """Seconds that a test may take before it fails."""

    @classmethod
    def collector(cls) -> Collector:
        """Return a new collector. It is created and called in a running event loop."""
        raise NotImplementedError

    def test_a_request_that_succeeds(self) -> None:
        self._observe(lambda watched, clock: _run_request(watched, clock, steps=5))

    def test_a_long_request_that_progresses(self) -> None:
        self._observe(lambda watched, clock: _run_request(watched, clock, steps=20, seconds=0.7, sequences=2))

    def test_a_request_without_tokens(self) -> None:
        self._observe(lambda watched, clock: _run_request(watched, clock, steps=1, tokens=0))

    def test_a_request_that_is_rejected_or_aborted_before_its_first_token(self) -> None:
        self._observe(
            lambda watched, clock: RequestTracker("rejected", [watched], clock).finish("it is too long")
        )

    def test_a_request_that_fails_or_is_aborted_while_it_generates(self) -> None:
        self._observe(lambda watched, clock: _run_request(watched, clock, steps=3, error="the client left"))

    def test_many_requests_at_once(self) -> None:
        def run(watched: Collector, clock: _Clock) -> None:
            trackers = [RequestTracker(f"request {i}", [watched], clock) for i in range(CONCURRENT_REQUESTS)]
            for i, tracker in enumerate(trackers):
                _generate(tracker, clock, steps=i % 3)
            for i, tracker in enumerate(reversed(trackers)):
                tracker.finish("the engine died" if i % 5 == 0 else None)

        self._observe(run)

    def test_requests_with_the_same_id(self) -> None:
        def run(watched: Collector, clock: _Clock) -> None:
            trackers = [RequestTracker("one", [watched], clock) for _ in range(3)]
            for tracker in trackers:
                _generate(tracker, clock, steps=2)
                tracker.finish()

        self._observe(run)

    def test_http_requests_of_other_routes(self) -> None:
        def run(collector: Collector) -> None:
            for status, error in ((200, None), (401, "a key is needed"), (None, "the client left")):
                tracker = RequestTracker(
                    "one", clock=_Clock(), method="GET", path="/v1/models", client="ip:::1"
                )
                tracker.status = status
                tracker.finish(error)
                collector.on_http_request_end(tracker)

        self._run_in_time(run)

    def test_the_state_of_the_engine_is_reported(self) -> None:
        def run(collector: Collector) -> None:
            for stats in ALL_STATS * 20:
                collector.on_interval(stats)

        self._run_in_time(run)

    def test_exposed_metrics_can_be_parsed(self) -> None:
        def run(collector: Collector) -> None:
            if isinstance(collector, MetricsExporter):
                _run_request(collector, _Clock(), steps=3)
                for stats in ALL_STATS:
                    for accept in ACCEPT_HEADERS:
                        _check_page(collector.expose(stats, accept))

        self._run_in_time(run)

    def _observe(self, requests: Callable[[Collector, _Clock], None]) -> None:
        self._run_in_time(lambda collector: requests(_Checked(collector), _Clock()))

    def _run_in_time(self, work: Callable[[Collector], None]) -> None:
        """Run work on a new collector in a thread with an event loop; fail after `timeout` seconds."""
        raised: list[BaseException] = []

        async def on_loop() -> None:
            work(self.collector())

        def run() -> None:
            try:
                asyncio.run(on_loop())
            except BaseException as error:  # noqa: BLE001  (raised again in the thread of the test)
                raised.append(error)

        thread = Thread(target=run, daemon=True)
        thread.start()
        thread.join(self.timeout)
        assert not thread.is_alive(), (
            f"the collector blocks: not done after {self.timeout:g} s; do slow work in a thread or task"
        )
        for error in raised:
            raise error


class _Checked(Collector):
    """Calls a collector and requires that it neither raises nor modifies its arguments."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def on_request_start(self, request: RequestRecord) -> None:
        self._call(self._collector.on_request_start, request)

    def on_first_token(self, request: RequestRecord) -> None:
        self._call(self._collector.on_first_token, request)

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        before = [*gaps]
        self._call(lambda request: self._collector.on_progress(request, gaps, tokens), request, "on_progress")
        assert [*gaps] == before, "on_progress modifies the gaps, which other collectors share; copy them"

    def on_request_end(self, request: RequestRecord) -> None:
        self._call(self._collector.on_request_end, request)

    def _call(self, method: Callable[[RequestRecord], None], request: RequestRecord, name: str = "") -> None:
        name = name or method.__name__
        before = _fields(request)
        with mapped(lambda e: AssertionError(f"{name} raised {format_error(e)} for the request {before}")):
            method(request)
        after = _fields(request)
        assert after == before, f"{name} modifies the request: expected {before}, received {after}"


def _fields(request: RequestRecord) -> dict[str, Any]:
    return {name: getattr(request, name) for name in FIELDS}


def _run_request(collector: Collector, clock: _Clock, *, error: str | None = None, **options: Any) -> None:
    tracker = RequestTracker("one", [collector], clock)
    _generate(tracker, clock, **options)
    tracker.finish(error)


def _generate(
    tracker: RequestTracker,
    clock: _Clock,
    *,
    steps: int,
    tokens: int = 3,
    seconds: float = 0.05,
    sequences: int = 1,
) -> None:
    """Record ``steps`` steps of each sequence of a request."""
    tracker.submit(prompt_tokens=7, max_tokens=40)
    for _ in range(steps):
        clock.now += seconds
        for index in range(sequences):
            tracker.step(index, tokens, queue_time=0.01)


def _check_page(page: MetricsPage) -> None:
    """Raise `AssertionError` if a page cannot be parsed according to its content type."""
    if "openmetrics" in page.content_type:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
    else:
        from prometheus_client.parser import text_string_to_metric_families as parse
    try:
        names = [family.name for family in parse(page.body.decode())]  # type: ignore[no-untyped-call]
    except (ValueError, KeyError) as error:
        raise AssertionError(
            f"can't parse the metrics page of type {page.content_type!r}: {error}"
        ) from error
    assert len(names) == len(set(names)), f"the metrics page has a family twice: {names}"
