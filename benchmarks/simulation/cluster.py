"""Replicas behind one server in virtual time, with the routing of the product."""

from __future__ import annotations

import heapq
import time
from array import array
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from fllm import EngineOutput, ModelCard
from fllm.batching import BatchLimits, Row, Sampled
from fllm.batching.batch import Batch
from fllm_backends.replicas.assignment import Assignment
from fllm_backends.replicas.replica import Replica
from fllm_backends.replicas.routing import WEIGHTS, PromptHasher, RoutingWeights, select
from simulation.costs import StepCosts
from simulation.engine import Engine, new_request
from simulation.trace import Trace

T = TypeVar("T")


class Settings(Struct, frozen=True, kw_only=True):
    """What a simulation varies."""

    replicas: int = 1
    limits: BatchLimits = BatchLimits()
    weights: RoutingWeights = WEIGHTS
    shared: bool = False
    """Whether the server and its client use the cores of the engines."""


class Served(Struct):
    """What became of one request. Times are in seconds since the start of the trace."""

    arrival: float
    replica: int
    prompt: int
    cached: int = 0
    tokens: int = 0
    """Tokens of the output."""
    first: float = -1.0
    """When its first token arrived; negative before."""
    last: float = -1.0

    @property
    def token_time(self) -> float | None:
        """Mean seconds between two of its tokens; ``None`` if it has only one."""
        return (self.last - self.first) / (self.tokens - 1) if self.tokens > 1 else None


class Run(Struct, frozen=True, kw_only=True):
    """What a simulation, or a client of a real server, observed."""

    served: list[Served]
    gaps: array[float]
    """Seconds between two tokens of a request."""
    busy: list[float] = []
    """Seconds of steps of each replica."""
    steps: int = 0
    preemptions: int = 0
    routing_seconds: float = 0.0
    """CPU time of the routing: measured, not simulated."""

    @property
    def seconds(self) -> float:
        """Seconds from the first arrival to the last token."""
        ends = [each.last for each in self.served]
        return max(ends, default=0.0) - min((each.arrival for each in self.served), default=0.0)


Execute = Callable[[Sequence[Row]], tuple[Sequence[Sampled], float]]
"""Returns the results of a step, and the seconds that it takes."""


class Cluster:
    """Plays one trace. Events are arrivals and ends of steps, in the order of their times."""

    def __init__(
        self, trace: Trace, costs: StepCosts, settings: Settings, executors: Sequence[Execute] = ()
    ) -> None:
        """Create the replicas. Without ``executors``, nothing is computed, and steps take what they cost."""
        self._trace, self._costs = trace, costs
        self._executors = executors or [self._execute] * settings.replicas
        self._weights = settings.weights
        server = costs.server
        self._request_seconds = server.request + server.client_request * settings.shared
        self._token_seconds = (server.token + server.client_token) * settings.shared
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._served: list[Served | None] = [None] * len(trace.requests)
        self._assignments: dict[int, Assignment] = {}
        self._gaps = array("d")
        self._busy = [0.0] * settings.replicas
        self._steps = 0
        self._routing = 0.0
        self._running = [False] * settings.replicas
        self._followers: dict[int, list[int]] = {}
        """Requests that arrive after another has ended, by its index."""
        card = ModelCard(
            tokenizer="",
            max_model_len=costs.max_model_len,
            runtime={"enable_prefix_caching": True, "block_size": settings.limits.block_size},
        )
        self._hasher = PromptHasher(card)
        self.replicas = [Replica(str(number), lambda _: None) for number in range(settings.replicas)]
        for replica in self.replicas:
            replica.on_ready()
        self.engines = [
            Engine(
                settings.limits,
                kv_blocks=costs.kv_blocks * costs.block_size // settings.limits.block_size,
                max_model_len=costs.max_model_len,
                clock=lambda: self._now,
            )
            for _ in self.replicas
        ]

    def run(self) -> Run:
        """Play the trace to its end."""
        for index, request in enumerate(self._trace.requests):
            if request.previous < 0:
                self._at(request.arrival, partial(self._arrive, index))
            else:
                self._followers.setdefault(request.previous, []).append(index)
        while self._events:
            self._now, _, event = heapq.heappop(self._events)
            event()
        return Run(
            served=[each for each in self._served if each is not None],
            gaps=self._gaps,
            busy=self._busy,
            steps=self._steps,
            preemptions=sum(engine.scheduler.status().preemptions for engine in self.engines),
            routing_seconds=self._routing,
        )

    def _at(self, when: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, event))

    def _arrive(self, index: int) -> None:
        request = self._trace.requests[index]
        asked = new_request(index, self._trace.prompt(index), request.output_length)
        started = time.thread_time()
        demand = _result(self._hasher.demand(asked))
        assignment = select(self.replicas, demand, self._weights)
        self._routing += time.thread_time() - started
        assert assignment is not None, "all replicas are ready"
        number = int(assignment.replica.name)
        self._assignments[index] = assignment
        self._served[index] = Served(self._now, number, request.input_length)
        self.engines[number].add(index, asked)
        if not self._running[number]:
            self._begin(number)

    def _begin(self, number: int) -> None:
        """Begin a step of a replica, if it has something to do."""
        batch = self.engines[number].begin()
        self._running[number] = batch is not None
        if batch is not None:
            results, seconds = self._executors[number](batch.rows)
            if self._token_seconds:
                seconds += self._token_seconds * sum(row.sample for row in batch.rows)
            self._busy[number] += seconds
            self._at(self._now + seconds, partial(self._end, number, batch, results))

    def _end(self, number: int, batch: Batch, results: Sequence[Sampled]) -> None:
        self._steps += 1
        outcomes, changes = self.engines[number].end(batch, results)
        if changes is not None:
            self.replicas[number].on_cache_change(changes)
        for name, outcome in outcomes:
            assert isinstance(outcome, EngineOutput), outcome
            self._deliver(int(name), outcome)
        self._begin(number)

    def _deliver(self, index: int, output: EngineOutput) -> None:
        served, assignment = self._served[index], self._assignments[index]
        assert served is not None, "it has arrived"
        if served.first < 0:
            served.first, served.cached = self._now + self._request_seconds, output.cached_tokens or 0
        else:
            self._gaps.append(self._now - served.last)
        served.last = self._now
        served.tokens += len(output.token_ids)
        assignment.record_output(len(output.token_ids))
        if output.finish_reason is not None:
            assignment.end()
            del self._assignments[index]
            for follower in self._followers.pop(index, ()):
                arrival = self._trace.requests[follower].arrival
                self._at(max(arrival, self._now), partial(self._arrive, follower))

    def _execute(self, rows: Sequence[Row]) -> tuple[list[Sampled], float]:
        """Return the tokens of the trace, and what the step costs."""
        token = self._trace.token
        results = [
            Sampled(token_id=token(row.seed, row.start + row.count) if row.sample else None) for row in rows
        ]
        return results, self._costs.of_step(rows)


def _result(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that only gives way to others, of which there are none."""
    while True:
        try:
            work.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result


def simulate(trace: Trace, costs: StepCosts, settings: Settings) -> Run:
    """Play a trace over replicas with these costs. The same arguments give the same result."""
    return Cluster(trace.within(costs.max_model_len), costs, settings).run()
