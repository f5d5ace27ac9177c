"""The latest requests of a server and their times, which the page shows. No text of a request is kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count

from msgspec import Struct

from fllm import Collector, EngineStats, RequestRecord

MAX_REQUESTS = 500
"""Number of latest generations that are kept."""
MAX_REFUSALS = 500
"""The same of refused requests."""
MAX_SAMPLES = 300
"""Seconds of which the state of the engine is kept."""
MAX_CHARS = 256
"""Maximum length of a text that a client has chosen, such as a path."""
RATE_SECONDS = 10
"""Seconds over which the rate of tokens is averaged."""


class LoggedRequest(Struct, frozen=True, kw_only=True):
    """A generation that runs or has ended. Times are in seconds."""

    number: int
    """Counts the requests and refusals that have ended; 0 while it runs."""
    request_id: str
    client: str
    model: str
    path: str
    method: str
    status: int | None
    """``None`` until the response begins."""
    is_running: bool
    received_at: float
    """Unix time."""
    waited: float
    """From its arrival until it was sent to the engine: reading, limits, loading of the model."""
    queue: float | None
    """In the engine, before its prefill; ``None`` if that is not known yet, as the others."""
    prefill: float | None
    decode: float | None
    total: float
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    replicas: Sequence[str]
    finish_reasons: Sequence[str]
    error: str | None


class Refusal(Struct, frozen=True, kw_only=True):
    """An HTTP request that got an error."""

    number: int
    time: float
    """Unix time."""
    client: str
    request_id: str
    method: str
    path: str
    status: int
    code: str | None
    message: str


class Sample(Struct, frozen=True, kw_only=True):
    """The state of the engine in one second."""

    time: float
    """Unix time."""
    running: int
    waiting: int
    tokens: int
    """Tokens that were generated since the sample before."""
    used_blocks: int


class RequestLog(Collector):
    """Collects requests in buffers of fixed size. All methods are called on the event loop."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self.stats: EngineStats | None = None
        """The latest state of the engine; ``None``: it does not respond."""
        self.samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self._clock, self._now = clock, now
        self._numbers = count(1)
        self._running: dict[int, RequestRecord] = {}
        self._ended: deque[LoggedRequest] = deque(maxlen=MAX_REQUESTS)
        self._refusals: deque[Refusal] = deque(maxlen=MAX_REFUSALS)
        self._first_tokens: deque[float] = deque(maxlen=MAX_REQUESTS)
        """Seconds from the arrival of requests to their first token."""
        self._tokens = 0
        self.last_number = 0
        """The number of the latest entry."""

    def on_request_start(self, request: RequestRecord) -> None:
        """Add a request that runs."""
        self._running[id(request)] = request

    def on_first_token(self, request: RequestRecord) -> None:
        """Record the time to the first token."""
        if request.first_token_at is not None:
            self._first_tokens.append(request.first_token_at - request.received_at)

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:  # noqa: ARG002
        """Count the tokens."""
        self._tokens += tokens

    def on_request_end(self, request: RequestRecord) -> None:
        """Keep what is known about the request, without the record itself."""
        self._running.pop(id(request), None)
        self._ended.append(self._logged(request, self._next_number()))

    def on_http_request_end(self, request: RequestRecord) -> None:
        """Keep an error response."""
        if request.status is not None and request.status >= 400:
            self._refusals.append(
                Refusal(
                    number=self._next_number(),
                    time=self._unix(request.received_at),
                    client=request.client,
                    request_id=request.request_id,
                    method=request.method[:MAX_CHARS],
                    path=request.path[:MAX_CHARS],
                    status=request.status,
                    code=request.error_code,
                    message=(request.error or "")[:MAX_CHARS],
                )
            )

    def on_interval(self, stats: EngineStats | None) -> None:
        """Keep the state of the engine."""
        self.stats = stats
        tokens, self._tokens = self._tokens, 0
        self.samples.append(
            Sample(
                time=self._now(),
                running=stats.running if stats else 0,
                waiting=stats.waiting if stats else 0,
                tokens=tokens,
                used_blocks=stats.kv_blocks_used if stats else 0,
            )
        )

    @property
    def tokens_per_second(self) -> float:
        """Tokens that all requests have generated in a second, on average over the latest seconds."""
        latest = list(self.samples)[-RATE_SECONDS - 1 :]
        seconds = latest[-1].time - latest[0].time if len(latest) > 1 else 0.0
        return sum(sample.tokens for sample in latest[1:]) / seconds if seconds > 0 else 0.0

    def first_token_quantiles(self, *fractions: float) -> list[float | None]:
        """Return quantiles of the seconds to the first token, over the latest requests."""
        ordered = sorted(self._first_tokens)
        return [ordered[min(int(f * len(ordered)), len(ordered) - 1)] if ordered else None for f in fractions]

    def requests(self, client: str | None, since: int = 0) -> Iterator[LoggedRequest]:
        """Yield the requests of a client: those that ended after number ``since``, then those that run.

        ``client``: its name; ``None``: all clients.
        """
        for ended in self._ended:
            if ended.number > since and client in (None, ended.client):
                yield ended
        for request in self._running.values():
            if client in (None, request.client):
                yield self._logged(request, 0)

    def refusals(self, client: str | None, since: int = 0) -> Iterator[Refusal]:
        """Yield the refused requests of a client, or all, after number ``since``."""
        for refusal in self._refusals:
            if refusal.number > since and client in (None, refusal.client):
                yield refusal

    def _next_number(self) -> int:
        self.last_number = next(self._numbers)
        return self.last_number

    def _unix(self, monotonic: float) -> float:
        return self._now() - (self._clock() - monotonic)

    def _logged(self, request: RequestRecord, number: int) -> LoggedRequest:
        now = self._clock() if request.finished_at is None else request.finished_at
        submitted, first = request.submitted_at, request.first_token_at
        return LoggedRequest(
            number=number,
            request_id=request.request_id,
            client=request.client,
            model=(request.adapter or request.model)[:MAX_CHARS],
            path=request.path[:MAX_CHARS],
            method=request.method[:MAX_CHARS],
            status=request.status,
            is_running=number == 0,
            received_at=self._unix(request.received_at),
            waited=(now if submitted is None else submitted) - request.received_at,
            queue=None if first is None else request.queue_time,
            prefill=None
            if first is None or submitted is None
            else max(first - submitted - request.queue_time, 0.0),
            decode=None if first is None else now - first,
            total=now - request.received_at,
            prompt_tokens=request.prompt_tokens,
            cached_tokens=request.cached_tokens,
            generated_tokens=request.generated_tokens,
            replicas=request.replicas,
            finish_reasons=request.finish_reasons,
            error=None if request.error is None else request.error[:MAX_CHARS],
        )
