"""The models of a server by name: how the model of a request is found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from fllm.errors import BackendUnavailable, ModelNotFound, RequestError
from fllm.stats import add_stats
from fllm.values import EngineStats, ModelCard, ModelStats
from fllm_api.adapters import USUAL_TAG, AdapterRegistry
from fllm_api.app_state import AppState, ParserChoice
from fllm_api.config import ServerConfig
from fllm_api.lifecycle.backend_status import backend_status, stats_or_none
from fllm_api.models.model import Model, ModelLoader
from fllm_api.models.pool import ModelPool


class AppLoader(ModelLoader[AppState], Protocol):
    """Loads one model of the server."""

    @property
    def config(self) -> ServerConfig:
        """The options of the model; those of HTTP are the same for all models."""
        ...

    @property
    def backend_name(self) -> str: ...
    @property
    def adapters(self) -> AdapterRegistry:
        """The LoRA adapters of the model, also while it is not loaded."""
        ...

    @property
    def card(self) -> ModelCard | None:
        """The description of the model as it was last loaded."""
        ...

    @property
    def parser_choices(self) -> Mapping[str, ParserChoice]:
        """Its parsers, as they were last chosen."""
        ...


class ServedModel(Struct, frozen=True):
    """A configured model, whether or not it is loaded."""

    loader: AppLoader
    model: Model[AppState]

    @property
    def name(self) -> str:
        """The name in responses."""
        return self.loader.config.served_model_name

    @property
    def names(self) -> Sequence[str]:
        """All names of the model itself."""
        return (self.name, *self.loader.config.served_model_aliases)


class ModelRegistry:
    """The models by name. A request's ``model`` is a name of a model or of one of its adapters."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        pool: ModelPool[AppState],
        *,
        created: int,
        strict: bool = False,
        fixed: bool = False,
    ) -> None:
        """Create it. ``strict``: unknown names are rejected. ``fixed``: the only model stays loaded."""
        self.created = created
        """Unix time in seconds, for `/v1/models`."""
        self.models = tuple(models)
        self.pool = pool
        self._by_name = {name: each for each in models for name in each.names}
        self._strict = strict or len(models) > 1
        self._fixed = fixed

    @property
    def selects(self) -> bool:
        """Whether the state for a request depends on the model that it names, or has to be loaded."""
        return self._strict or not self._fixed

    def find(self, name: str | None) -> ServedModel:
        """Return the model that a request names; without a name, the first one.

        Clients of Ollama may add `USUAL_TAG`. Raise `ModelNotFound` if there is none of this name, unless
        the only model has any name.
        """
        if not name:
            return self.models[0]
        for each in (name, name.removesuffix(USUAL_TAG)):
            if (model := self._by_name.get(each) or self.owner_of(each)) is not None:
                return model
        if self._strict:
            raise ModelNotFound(f"the model {name!r} does not exist; {self.describe()}")
        return self.models[0]

    def owner_of(self, adapter: str) -> ServedModel | None:
        """Return the model of a LoRA adapter, or ``None``. Raise `ModelNotFound` if it was unloaded."""
        return next((each for each in self.models if each.loader.adapters.find(adapter)), None)

    def check_adapter_name(self, name: str, model: ServedModel) -> None:
        """Raise `RequestError` if another model, or an adapter of another one, has this name."""
        for each in self.models:
            adapters = (adapter.name for adapter in each.loader.adapters.loaded)
            if each is not model and (name in each.names or name in adapters):
                raise RequestError(f"{name!r} is a name of another model", param="lora_name")

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter of any model. Raise `ModelNotFound` if no model has it."""
        adapters = [each.loader.adapters for each in self.models]
        owner = next((each for each in adapters if any(name == one.name for one in each.loaded)), adapters[0])
        await owner.unload(name)

    def describe(self) -> str:
        """Return the names of all models, for a message."""
        adapters = (adapter.name for each in self.models for adapter in each.loader.adapters.loaded)
        return f"this server serves {' or '.join(map(repr, (*self._by_name, *adapters)))}"

    @asynccontextmanager
    async def use(self, model: ServedModel, client: str) -> AsyncIterator[AppState]:
        """Keep a model loaded in this block. Raise `ModelUnavailable` if it can't be loaded."""
        lease = await self.pool.acquire(model.model, client)
        try:
            yield lease.loaded
        finally:
            lease.release()

    async def check_health(self) -> None:
        """Raise `BackendUnavailable` if the engine of a loaded model does not respond."""
        for each in self.models:
            loaded = each.model.loaded
            if loaded is not None and each.model.state == "loaded":  # not one that is being unloaded
                try:
                    await backend_status(loaded.backend)
                except BackendUnavailable as error:
                    if len(self.models) == 1:
                        raise
                    raise BackendUnavailable(f"{each.name}: {error.message}") from error

    async def status(self) -> EngineStats:
        """Return the statistics of all engines, and the memory that they occupy.

        Raise `BackendUnavailable` if the only model stays loaded and its engine does not respond.
        """
        if self._fixed and self.models[0].model.loaded is not None:
            return await backend_status(self.models[0].model.loaded.backend)
        models = {each.name: await self._model_stats(each) for each in self.models}
        engines = [each.engine for each in models.values() if each.engine is not None]
        return replace(add_stats(*engines), models=models)

    async def _model_stats(self, served: ServedModel) -> ModelStats:
        model = served.model
        loaded = model.loaded if model.state == "loaded" else None
        engine = None if loaded is None else await stats_or_none(loaded.backend)
        if engine is not None and model.loaded is loaded:
            self.pool.record_size(model, engine.memory)
        return ModelStats(
            state=model.state,
            pinned=model.pinned,
            memory=model.memory,
            loads=model.loads,
            in_flight=model.in_flight,
            waiting=self.pool.waiting(model),
            engine=engine,
        )


class LoadedModel(Struct):
    """The loader of a model that is loaded already, and is never unloaded."""

    state: AppState

    @property
    def config(self) -> ServerConfig:
        """The options of the model."""
        return self.state.config

    @property
    def backend_name(self) -> str:
        """Name of the backend."""
        return self.state.backend_name

    @property
    def adapters(self) -> AdapterRegistry:
        """The LoRA adapters of the model."""
        return self.state.adapters

    @property
    def card(self) -> ModelCard:
        """The description of the model."""
        return self.state.card

    @property
    def parser_choices(self) -> Mapping[str, ParserChoice]:
        """The parsers of the model."""
        return self.state.parser_choices

    async def load(self) -> AppState:
        """Return the loaded model."""
        return self.state

    async def unload(self, loaded: AppState) -> None:
        """Do nothing: who has started the backend stops it."""

    async def measure(self, loaded: AppState) -> int:  # noqa: ARG002
        """Return 0: it is not known."""
        return 0


def single_model(state: AppState) -> ModelRegistry:
    """Return the registry of one model that is loaded."""
    model: Model[AppState] = Model(state.config.served_model_name, LoadedModel(state), pinned=True)
    pool = ModelPool([model])
    pool.adopt(model, state)
    served = ServedModel(LoadedModel(state), model)
    return ModelRegistry(
        [served], pool, created=state.created, strict=state.config.strict_model_name, fixed=True
    )
