"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from msgspec import UNSET
from msgspec.structs import replace

from fllm_api.app_state import AppState
from fllm_api.openapi.responses import errors
from fllm_api.protocol.models import ModelList, ModelObject


class ModelsController(Controller):
    """Lists and describes the served model and its LoRA adapters."""

    path = "/v1/models"
    tags = ("OpenAI",)

    @get(responses=errors(401), summary="List the models")
    async def list_models(self, server: NamedDependency[AppState]) -> ModelList:
        """Return the list of models: one entry for each name of the model, and for each LoRA adapter."""
        return ModelList(data=list(_models(server).values()))

    @get("/{model_id:path}", responses=errors(401, 404), summary="Describe a model")
    async def retrieve(self, model_id: FromPath[str], server: NamedDependency[AppState]) -> ModelObject:
        """Return a model by its id, which may contain slashes."""
        models = _models(server)
        # Litestar adds a leading slash to a path parameter; the id may also have one of its own.
        found = models.get(model_id) or models.get(model_id.removeprefix("/"))
        if found is None:
            raise NotFoundException(
                f"the model {model_id.removeprefix('/')!r} does not exist; "
                f"this server serves {' or '.join(map(repr, models))}",
                extra={"param": "model", "code": "model_not_found"},
            )
        return found


def _models(server: AppState) -> dict[str, ModelObject]:
    """Return the model under each of its names, then its adapters."""
    name = server.config.served_model_name
    models = {each: _model(server, each) for each in (name, *server.config.served_model_aliases)}
    for adapter in server.adapters.loaded:
        models[adapter.name] = replace(
            models[name], id=adapter.name, root=adapter.path, parent=adapter.base_model_name or name
        )
    return models


def _model(server: AppState, name: str) -> ModelObject:
    card, root = server.card, server.adapters.model
    return ModelObject(
        id=name,
        created=server.created,
        root=UNSET if root is None else root,
        parent=UNSET if root is None else None,
        artifact_id=card.artifact_id,
        max_prompt_len=card.max_model_len - (card.pooling is None),  # an output has at least one token
        max_context_len=card.max_model_len,
        max_model_len=card.max_model_len,
        runtime_config={**card.runtime, **server.parser_choices},
    )
