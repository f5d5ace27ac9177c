"""What every collector of metrics promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any, ClassVar

from fllm.errors import format_error
from fllm.interfaces import Auditing, Collector, MetricsExporter, MetricsPage, RequestRecord, Ticking
from fllm.pipeline.request_tracker import RequestTracker
from fllm.values import EngineStats

FIELDS = [name for name in vars(RequestRecord) if not name.startswith("_")]
STATUSES = (
    None,
    EngineStats(),
    EngineStats(running=3, waiting=2, kv_blocks=10, kv_blocks_used=4, prefix_queries=7),
)
ACCEPTED = ("", "text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0", "*/*")
"""What scrapers say that they understand."""
CROWD = 500
"""So many requests at once."""


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class CollectorContract:
    """Every collector passes this: whatever becomes of requests, it neither raises nor blocks."""

    patience: ClassVar[float] = 30.0
    """Seconds after which whatever still works is taken to block."""

    @classmethod
    def collector(cls) -> Collector:
        """A new collector; made, and called, while an event loop runs."""
        raise NotImplementedError

    def test_a_request_that_succeeds(self) -> None:
        self._hears(lambda watched, clock: _answer(watched, clock, steps=5))

    def test_a_long_answer_that_progresses(self) -> None:
        self._hears(lambda watched, clock: _answer(watched, clock, steps=20, seconds=0.7, sequences=2))

    def test_a_request_without_tokens(self) -> None:
        self._hears(lambda watched, clock: _answer(watched, clock, steps=1, tokens=0))

    def test_a_request_that_is_refused_or_left_before_its_first_token(self) -> None:
        self._hears(
            lambda watched, clock: RequestTracker("refused", [watched], clock).finish("it is too long")
        )

    def test_a_request_that_fails_or_is_left_amid_its_answer(self) -> None:
        self._hears(lambda watched, clock: _answer(watched, clock, steps=3, error="the client left"))

    def test_many_requests_at_once(self) -> None:
        def crowd(watched: Collector, clock: _Clock) -> None:
            traces = [RequestTracker(f"request {i}", [watched], clock) for i in range(CROWD)]
            for i, tracker in enumerate(traces):
                _go_on(tracker, clock, steps=i % 3)
            for i, tracker in enumerate(reversed(traces)):
                tracker.finish("the engine died" if i % 5 == 0 else None)

        self._hears(crowd)

    def test_requests_whose_ids_are_the_same(self) -> None:
        def twins(watched: Collector, clock: _Clock) -> None:
            traces = [RequestTracker("one", [watched], clock) for _ in range(3)]
            for tracker in traces:
                _go_on(tracker, clock, steps=2)
                tracker.finish()

        self._hears(twins)

    def test_requests_that_ask_for_no_tokens(self) -> None:
        def audit(collector: Collector) -> None:
            if isinstance(collector, Auditing):
                for status, error in ((200, None), (401, "a key is needed"), (None, "the client left")):
                    tracker = RequestTracker(
                        "one", clock=_Clock(), method="GET", path="/v1/models", client="ip:::1"
                    )
                    tracker.status = status
                    tracker.finish(error)
                    collector.answered(tracker)

        self._in_time(audit)

    def test_ticks(self) -> None:
        def tick(collector: Collector) -> None:
            if isinstance(collector, Ticking):
                for status in STATUSES * 20:
                    collector.tick(status)

        self._in_time(tick)

    def test_what_it_exposes_can_be_read(self) -> None:
        def expose(collector: Collector) -> None:
            if isinstance(collector, MetricsExporter):
                _answer(collector, _Clock(), steps=3)
                for status in STATUSES:
                    for accept in ACCEPTED:
                        _check_page(collector.expose(status, accept))

        self._in_time(expose)

    def _hears(self, requests: Callable[[Collector, _Clock], None]) -> None:
        self._in_time(lambda collector: requests(_Watched(collector), _Clock()))

    def _in_time(self, work: Callable[[Collector], None]) -> None:
        """Work on a new collector in a thread with an event loop, so that one that blocks hangs no test."""
        raised: list[BaseException] = []

        async def on_loop() -> None:
            work(self.collector())

        def run() -> None:
            try:
                asyncio.run(on_loop())
            except BaseException as error:  # noqa: BLE001  (raised again in the test's own thread)
                raised.append(error)

        thread = Thread(target=run, daemon=True)
        thread.start()
        thread.join(self.patience)
        assert not thread.is_alive(), f"it blocks: after {self.patience:g} s it has not come back"
        for error in raised:
            raise error


class _Watched:
    """Passes everything on, and sees that nothing is raised and nothing changed."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def received(self, request: RequestRecord) -> None:
        self._tell("received", request)

    def started(self, request: RequestRecord) -> None:
        self._tell("started", request)

    def progressed(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        before = [*gaps]
        self._tell("progressed", request, gaps, tokens)
        assert [*gaps] == before, "progressed changes the gaps, which are others' too"

    def finished(self, request: RequestRecord) -> None:
        self._tell("finished", request)

    def _tell(self, method: str, request: RequestRecord, *more: Any) -> None:
        before = _fields(request)
        try:
            getattr(self._collector, method)(request, *more)
        except Exception as error:  # whatever it is, its author wants to see which request it came of
            raise AssertionError(f"{method} raised {format_error(error)}; the request: {before}") from error
        assert _fields(request) == before, f"{method} changes the request: {before} became {_fields(request)}"


def _fields(request: RequestRecord) -> dict[str, Any]:
    return {name: getattr(request, name) for name in FIELDS}


def _answer(collector: Collector, clock: _Clock, *, error: str | None = None, **how: Any) -> None:
    tracker = RequestTracker("one", [collector], clock)
    _go_on(tracker, clock, **how)
    tracker.finish(error)


def _go_on(
    tracker: RequestTracker,
    clock: _Clock,
    *,
    steps: int,
    tokens: int = 3,
    seconds: float = 0.05,
    sequences: int = 1,
) -> None:
    """So many steps of each sequence of a request."""
    tracker.submit(prompt_tokens=7, max_tokens=40)
    for _ in range(steps):
        clock.now += seconds
        for index in range(sequences):
            tracker.step(index, tokens, queue_time=0.01)


def _check_page(page: MetricsPage) -> None:
    """A page that a scraper understands, of the type that it says."""
    if "openmetrics" in page.content_type:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
    else:
        from prometheus_client.parser import text_string_to_metric_families as parse
    try:
        names = [family.name for family in parse(page.body.decode())]  # type: ignore[no-untyped-call]
    except (ValueError, KeyError) as error:
        raise AssertionError(f"a page of type {page.content_type!r} can't be read: {error}") from error
    assert len(names) == len(set(names)), f"a family stands twice on the page: {names}"
