"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from fllm_api.app_state import AppState
from fllm_api.openapi.responses import errors
from fllm_api.protocol.models import ModelList, ModelObject


class ModelsController(Controller):
    """The one model of this server."""

    path = "/v1/models"
    tags = ("OpenAI",)

    @get(responses=errors(401), summary="List the models")
    async def list_models(self, server: NamedDependency[AppState]) -> ModelList:
        """All models: one."""
        return ModelList(data=[_model(server)])

    @get("/{model_id:path}", responses=errors(401, 404), summary="Describe a model")
    async def retrieve(self, model_id: FromPath[str], server: NamedDependency[AppState]) -> ModelObject:
        """One model; its id may contain slashes."""
        model = _model(server)
        # The router gives a path a leading slash, which may also be the id's own.
        if model.id not in (model_id, model_id.removeprefix("/")):
            raise NotFoundException(
                f"there is no model {model_id.removeprefix('/')!r}; this server has {model.id!r}",
                extra={"param": "model", "code": "model_not_found"},
            )
        return model


def _model(server: AppState) -> ModelObject:
    card = server.card
    return ModelObject(
        id=server.config.served_model_name,
        created=server.created,
        artifact_id=card.artifact_id,
        max_prompt_len=card.max_model_len - 1,
        max_context_len=card.max_model_len,
        max_model_len=card.max_model_len,
        runtime_config=card.runtime,
    )
