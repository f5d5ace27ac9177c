"""`/admin/models`: load, unload and pin models, with a key of ``--admin-key``."""

from __future__ import annotations

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from fllm.errors import ModelNotFound, RequestError
from fllm_api.admin_paths import PREFIX, name_in_path
from fllm_api.intake.json_body import ApiRequest
from fllm_api.lifecycle.client_disconnect import run_while_connected
from fllm_api.middleware.authentication import ADMIN
from fllm_api.model_registry import ModelRegistry, ServedModel
from fllm_api.openapi.responses import errors
from fllm_api.protocol.admin import AdminModel, AdminModelList
from fllm_api.request_context import context_of


class AdminController(Controller):
    """Shows and controls which models are loaded."""

    path = PREFIX
    tags = ("Admin",)
    opt = ADMIN

    @get(responses=errors(401), summary="List the models, with what they occupy")
    async def list_models(self, models: NamedDependency[ModelRegistry]) -> AdminModelList:
        """Return the state of every model."""
        await models.status()
        return AdminModelList(
            data=[describe(models, each) for each in models.models],
            memory_budget=models.pool.budget,
            memory=sum(each.model.memory for each in models.models),
        )

    @post("/{name:str}/load", status_code=200, responses=errors(401, 404, 503), summary="Load a model")
    async def load(
        self, name: FromPath[str], request: ApiRequest, models: NamedDependency[ModelRegistry]
    ) -> AdminModel:
        """Load a model, unless it is loaded, and return once it is. A failed load is tried again at once."""
        served = _find(models, name)
        models.pool.retry(served.model)
        client = context_of(request.scope).client
        await run_while_connected(request.receive, models.pool.load(served.model, client))
        return describe(models, served)

    @post("/{name:str}/unload", status_code=200, responses=errors(401, 404), summary="Unload a model")
    async def unload(
        self, name: FromPath[str], request: ApiRequest, models: NamedDependency[ModelRegistry]
    ) -> AdminModel:
        """Unload a model after its requests in flight, and return once its memory is free.

        Requests that arrive meanwhile wait, and load it again.
        """
        served = _find(models, name)
        await run_while_connected(request.receive, models.pool.unload(served.model))
        return describe(models, served)

    @post("/{name:str}/pin", status_code=200, responses=errors(400, 401, 404), summary="Keep a model loaded")
    async def pin(self, name: FromPath[str], models: NamedDependency[ModelRegistry]) -> AdminModel:
        """Keep a model loaded once it is: it neither makes room for others nor sleeps."""
        served = _find(models, name)
        if (problem := models.pool.pin_problem([served.model])) is not None:
            raise RequestError(problem, param="name")
        models.pool.pin(served.model, pinned=True)
        return describe(models, served)

    @post("/{name:str}/unpin", status_code=200, responses=errors(401, 404), summary="Unpin a model")
    async def unpin(self, name: FromPath[str], models: NamedDependency[ModelRegistry]) -> AdminModel:
        """Allow a model to be unloaded again."""
        served = _find(models, name)
        models.pool.pin(served.model, pinned=False)
        return describe(models, served)


def describe(models: ModelRegistry, served: ServedModel) -> AdminModel:
    """Return the state of a model."""
    model = served.model
    return AdminModel(
        id=served.name,
        state=model.state,
        pinned=model.pinned,
        memory=model.memory,
        expected_memory=model.size,
        in_flight=model.in_flight,
        waiting=models.pool.waiting(model),
        loads=model.loads,
        error=model.error or None,
    )


def _find(models: ModelRegistry, segment: str) -> ServedModel:
    name = name_in_path(segment)
    found = next((each for each in models.models if name in each.names), None)
    if found is None:
        raise ModelNotFound(f"the model {name!r} does not exist; {models.describe()}", param="name")
    return found
