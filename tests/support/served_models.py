"""Applications with several fake models that are loaded on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from msgspec.structs import replace
from support.api_fakes import a_server

from fllm.errors import ModelError
from fllm.values import ModelCard
from fllm_api.adapters import AdapterRegistry
from fllm_api.app import create_models_app
from fllm_api.app_state import AppState, ParserChoice, ServerState
from fllm_api.config import ServerConfig
from fllm_api.model_registry import ModelRegistry, ServedModel
from fllm_api.models.model import Model
from fllm_api.models.pool import ModelPool


class StateLoader:
    """Loads a state that was made before."""

    backend_name = "fake"

    def __init__(self, state: AppState) -> None:
        self.state = state
        self.config: ServerConfig = state.config
        self.adapters: AdapterRegistry = state.adapters
        self.card: ModelCard | None = None
        self.parser_choices: Mapping[str, ParserChoice] = {}
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.fails = False

    async def load(self) -> AppState:
        await self.may_load.wait()
        if self.fails:
            raise ModelError("no such file")
        self.card = self.state.card
        self.adapters.attach(self.state.backend)
        return self.state

    async def unload(self, loaded: AppState) -> None:
        assert loaded is self.state
        self.adapters.attach(None)

    async def measure(self, loaded: AppState) -> int:
        return 0


class SeveralModels:
    """A server with several models, and a client of it."""

    def __init__(
        self,
        models: Mapping[str, AppState],
        *,
        budget: int | None = None,
        config: Mapping[str, Any] | None = None,
        **shared: Any,
    ) -> None:
        """Create a server whose models occupy one byte each. ``config`` has fields of `ServerConfig`."""
        common = dict(config or {})
        states = {
            name: replace(state, config=replace(state.config, served_model_name=name, **common), **shared)
            for name, state in models.items()
        }
        self.loaders = {name: StateLoader(state) for name, state in states.items()}
        served = [ServedModel(each, Model(name, each, size=1)) for name, each in self.loaders.items()]
        first = next(iter(states.values()))
        self.pool: ModelPool[AppState] = ModelPool(
            [each.model for each in served], budget=budget, max_waiting=first.config.max_queue
        )
        self.registry = ModelRegistry(
            served, self.pool, created=1700000000, strict=first.config.strict_model_name
        )
        self.app = create_models_app(ServerState(**first.shared_fields), self.registry)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Yield a client, and unload all models at exit."""
        transport = httpx.ASGITransport(self.app)  # type: ignore[arg-type]
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                yield client
        finally:
            await self.pool.close()


def two_models(**options: Any) -> SeveralModels:
    """Return a server whose models ``a`` and ``b`` generate different texts."""
    return SeveralModels({"a": a_server(["from", " a"]), "b": a_server(["from", " b"])}, **options)
