"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from msgspec import UNSET
from msgspec.structs import replace

from fllm_api.model_registry import ModelRegistry, ServedModel
from fllm_api.openapi.responses import errors
from fllm_api.protocol.models import ModelList, ModelObject


class ModelsController(Controller):
    """Lists and describes the served models and their LoRA adapters."""

    path = "/v1/models"
    tags = ("OpenAI",)

    @get(responses=errors(401), summary="List the models")
    async def list_models(self, models: NamedDependency[ModelRegistry]) -> ModelList:
        """Return the list of models: one entry for each name of a model, and for each LoRA adapter."""
        return ModelList(data=list(_models(models).values()))

    @get("/{model_id:path}", responses=errors(401, 404), summary="Describe a model")
    async def retrieve(self, model_id: FromPath[str], models: NamedDependency[ModelRegistry]) -> ModelObject:
        """Return a model by its id, which may contain slashes."""
        by_id = _models(models)
        # Litestar adds a leading slash to a path parameter; the id may also have one of its own.
        found = by_id.get(model_id) or by_id.get(model_id.removeprefix("/"))
        if found is None:
            raise NotFoundException(
                f"the model {model_id.removeprefix('/')!r} does not exist; "
                f"this server serves {' or '.join(map(repr, by_id))}",
                extra={"param": "model", "code": "model_not_found"},
            )
        return found


def _models(registry: ModelRegistry) -> dict[str, ModelObject]:
    """Return each model under each of its names, then its adapters."""
    models: dict[str, ModelObject] = {}
    for served in registry.models:
        models |= {name: _model(registry, served, name) for name in served.names}
        for adapter in served.loader.adapters.loaded:
            models[adapter.name] = replace(
                models[served.name],
                id=adapter.name,
                root=adapter.path,
                parent=adapter.base_model_name or served.name,
            )
    return models


def _model(registry: ModelRegistry, served: ServedModel, name: str) -> ModelObject:
    card, root = served.loader.card, served.loader.adapters.model
    described = ModelObject(
        id=name,
        created=registry.created,
        root=UNSET if root is None else root,
        parent=UNSET if root is None else None,
    )
    if card is not None:
        described = replace(
            described,
            artifact_id=card.artifact_id,
            max_prompt_len=card.max_model_len - (card.pooling is None),  # an output has at least one token
            max_context_len=card.max_model_len,
            max_model_len=card.max_model_len,
            input_modalities=UNSET if card.images is None else ["text", "image"],
            runtime_config={**card.runtime, **served.loader.parser_choices},
        )
    if registry.selects:
        model = served.model
        described = replace(described, state=model.state, memory=model.memory, pinned=model.pinned)
    return described
