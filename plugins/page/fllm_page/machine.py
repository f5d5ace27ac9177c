"""`GET /page/machine`: the state of the engine, and the latest requests of the client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from litestar import get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery
from msgspec import Struct
from msgspec.structs import replace

from fllm import ADMIN_TOO, POLLED, CacheTierStats, Client, EngineStats, ServerDescription
from fllm_page.description import NO_STORE
from fllm_page.request_log import LoggedRequest, Refusal, RequestLog, Sample


class FirstTokenTimes(Struct, frozen=True):
    """Quantiles of the seconds to the first token; null if there was none yet."""

    p50: float | None
    p90: float | None
    p99: float | None


class CacheUse(Struct, frozen=True, kw_only=True):
    """The KV cache and the prefix cache, since the start of the engine."""

    blocks: int
    used_blocks: int
    prefix_queries: int
    """Prompt tokens that were looked up."""
    prefix_hits: int
    tiers: Mapping[str, CacheTierStats]


class MachineModel(Struct, frozen=True, kw_only=True):
    """A model, and what it occupies."""

    name: str
    state: str
    pinned: bool
    memory: int
    """Bytes."""
    loads: int
    in_flight: int
    waiting: int


class MachineReplica(Struct, frozen=True, kw_only=True):
    """One of several engines of a model."""

    name: str
    model: str
    state: str
    requests: int
    """Requests in flight."""
    total_requests: int
    restarts: int


class Machine(Struct, frozen=True, kw_only=True):
    """Response of `GET /page/machine`."""

    next: int
    """Value of ``since`` for what follows."""
    sees_all: bool
    """Whether requests of other clients are listed."""
    is_healthy: bool
    """Whether the engine responds. If not, its gauges are 0."""
    running: int
    waiting: int
    tokens_per_second: float
    ttft: FirstTokenTimes
    memory: int
    """Bytes of the engine; 0: not known."""
    cache: CacheUse
    preemptions: int
    models: list[MachineModel]
    replicas: list[MachineReplica]
    samples: list[Sample]
    """One for each second."""
    requests: list[LoggedRequest]
    refused: list[Refusal]


def machine_route(log: RequestLog, describe: Callable[[], ServerDescription]) -> HTTPRouteHandler:
    """Return the handler."""

    @get(
        "/page/machine",
        opt={**ADMIN_TOO, **POLLED},
        include_in_schema=False,
        response_headers=NO_STORE,
        sync_to_thread=False,
    )
    def machine(client: NamedDependency[Client], since: FromQuery[int] = 0) -> Machine:
        """Return the state of the engine, and requests that ended after number ``since``."""
        return read_machine(log, describe(), client, since)

    return machine


def read_machine(log: RequestLog, described: ServerDescription, client: Client, since: int) -> Machine:
    """Return what a client may see."""
    name = None if client.sees_all else client.name
    stats = log.stats or EngineStats()
    default = described.models[0].name if described.models else ""
    return Machine(
        next=log.last_number,
        sees_all=client.sees_all,
        is_healthy=log.stats is not None,
        running=stats.running,
        waiting=stats.waiting,
        tokens_per_second=log.tokens_per_second,
        ttft=FirstTokenTimes(*log.first_token_quantiles(0.5, 0.9, 0.99)),
        memory=stats.memory,
        cache=CacheUse(
            blocks=stats.kv_blocks,
            used_blocks=stats.kv_blocks_used,
            prefix_queries=stats.prefix_queries,
            prefix_hits=stats.prefix_hits,
            tiers=stats.cache_tiers,
        ),
        preemptions=stats.preemptions,
        models=_models(described, stats),
        replicas=list(_replicas(stats, default)),
        samples=list(log.samples),
        requests=[each if each.model else replace(each, model=default) for each in log.requests(name, since)],
        refused=list(log.refusals(name, since)),
    )


def _models(described: ServerDescription, stats: EngineStats) -> list[MachineModel]:
    models = []
    for model in described.models:
        known = stats.models.get(model.name)
        models.append(
            MachineModel(
                name=model.name,
                state=model.state,
                pinned=known.pinned if known else False,
                memory=known.memory if known else stats.memory,
                loads=known.loads if known else 1,
                in_flight=known.in_flight if known else stats.running,
                waiting=known.waiting if known else stats.waiting,
            )
        )
    return models


def _replicas(stats: EngineStats, default: str) -> Iterator[MachineReplica]:
    """Yield the replicas of all loaded models; ``default`` is the model of a server that has one."""
    engines = {name: model.engine for name, model in stats.models.items()} or {default: stats}
    for model, engine in engines.items():
        for replica in engine.replicas if engine else ():
            yield MachineReplica(
                name=replica.name,
                model=model,
                state=replica.state,
                requests=replica.requests,
                total_requests=replica.total_requests,
                restarts=replica.restarts,
            )
