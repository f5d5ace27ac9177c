"""`/admin/replicas`: drain replicas for maintenance, with a key of ``--admin-key``."""

from __future__ import annotations

from collections.abc import Iterator

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery

from fllm.errors import RequestError
from fllm.interfaces import DrainsReplicas
from fllm.values import ReplicaStats
from fllm_api.middleware.authentication import ADMIN
from fllm_api.model_registry import ModelRegistry
from fllm_api.openapi.responses import errors
from fllm_api.protocol.admin import AdminReplica, AdminReplicaList


class AdminReplicasController(Controller):
    """Shows the replicas of the loaded models, and takes them out of service and back."""

    path = "/admin/replicas"
    tags = ("Admin",)
    opt = ADMIN

    @get(responses=errors(401), summary="List the replicas of the loaded models")
    async def list_replicas(self, models: NamedDependency[ModelRegistry]) -> AdminReplicaList:
        """Return the state of every replica; models with one engine have none."""
        found = [(model, each) for model, backend in _backends(models) for each in backend.list_replicas()]
        return AdminReplicaList(data=[_describe(model, each) for model, each in found])

    @post("/{name:str}/drain", status_code=200, responses=errors(400, 401, 404), summary="Drain a replica")
    async def drain(
        self, name: FromPath[str], models: NamedDependency[ModelRegistry], model: FromQuery[str | None] = None
    ) -> AdminReplica:
        """Send no more requests to a replica. It is ``drained`` once those that it has are complete."""
        found, backend = _find(models, name, model)
        return _describe(found, backend.drain_replica(name))

    @post("/{name:str}/resume", status_code=200, responses=errors(400, 401, 404), summary="Resume a replica")
    async def resume(
        self, name: FromPath[str], models: NamedDependency[ModelRegistry], model: FromQuery[str | None] = None
    ) -> AdminReplica:
        """Send requests to a drained replica again."""
        found, backend = _find(models, name, model)
        return _describe(found, backend.resume_replica(name))


def _backends(models: ModelRegistry) -> Iterator[tuple[str, DrainsReplicas]]:
    """Yield the backends of the loaded models that have replicas."""
    for each in models.models:
        loaded = each.model.loaded
        if loaded is not None and isinstance(loaded.backend, DrainsReplicas):
            yield each.name, loaded.backend


def _find(models: ModelRegistry, name: str, model: str | None) -> tuple[str, DrainsReplicas]:
    """Return the model that has a replica of this name, and its backend."""
    found = [
        (each, backend)
        for each, backend in _backends(models)
        if model in (None, each) and any(replica.name == name for replica in backend.list_replicas())
    ]
    if not found:
        of_model = "" if model is None else f" of {model!r}"
        raise NotFoundException(f"there is no replica {name!r}{of_model}; GET /admin/replicas lists them")
    if len(found) > 1:
        names = ", ".join(each for each, _ in found)
        raise RequestError(
            f"several models have a replica {name!r}: add ?model= and one of {names}", param="model"
        )
    return found[0]


def _describe(model: str, replica: ReplicaStats) -> AdminReplica:
    return AdminReplica(
        id=replica.name,
        model=model,
        state=replica.state,
        requests=replica.requests,
        queued_tokens=replica.queued_tokens,
        total_requests=replica.total_requests,
        restarts=replica.restarts,
    )
