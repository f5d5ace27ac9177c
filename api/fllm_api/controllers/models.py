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
    """Lists and describes the served model."""

    path = "/v1/models"
    tags = ("OpenAI",)

    @get(responses=errors(401), summary="List the models")
    async def list_models(self, server: NamedDependency[AppState]) -> ModelList:
        """Return the list of models: one entry for each name of the served model."""
        return ModelList(data=[_model(server, name) for name in _names(server)])

    @get("/{model_id:path}", responses=errors(401, 404), summary="Describe a model")
    async def retrieve(self, model_id: FromPath[str], server: NamedDependency[AppState]) -> ModelObject:
        """Return a model by its id, which may contain slashes."""
        names = _names(server)
        # Litestar adds a leading slash to a path parameter; the id may also have one of its own.
        for name in names:
            if name in (model_id, model_id.removeprefix("/")):
                return _model(server, name)
        raise NotFoundException(
            f"the model {model_id.removeprefix('/')!r} does not exist; "
            f"this server serves {' or '.join(map(repr, names))}",
            extra={"param": "model", "code": "model_not_found"},
        )


def _names(server: AppState) -> tuple[str, ...]:
    return (server.config.served_model_name, *server.config.served_model_aliases)


def _model(server: AppState, name: str) -> ModelObject:
    card = server.card
    return ModelObject(
        id=name,
        created=server.created,
        artifact_id=card.artifact_id,
        max_prompt_len=card.max_model_len - 1,
        max_context_len=card.max_model_len,
        max_model_len=card.max_model_len,
        runtime_config={**card.runtime, **server.parser_choices},
    )
