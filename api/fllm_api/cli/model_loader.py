"""Load a model: start its backend and load its files, once or any number of times."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import asdict, replace

from fllm.concurrency.timeout_executor import TaskTimeout, TimeoutExecutor
from fllm.config import LoraAdapter
from fllm.engine_host import EngineHost
from fllm.errors import ModelError
from fllm.interfaces import Backend, BackendContext, check_adapters
from fllm.model_check import ModelCheck
from fllm.plugins.loader import Plugins
from fllm.values import ModelCard, Progress, SamplingDefaults
from fllm_api.adapters import AdapterRegistry
from fllm_api.cli.model_files import ModelFiles, StartedModel, load_model_files
from fllm_api.cli.settings import Settings
from fllm_api.config import ServerConfig
from fllm_api.lifecycle.backend_status import stats_or_none
from fllm_api.limits.heap_trimmer import HeapTrimmer

if TYPE_CHECKING:
    from fllm_api.app_state import AppState, ParserChoice, ServerState

T = TypeVar("T")

log = logging.getLogger("fllm.server")

LOAD_TIMEOUT = 300.0
"""Seconds that the tokenizer and the chat template may take to load. Their checks have shorter limits."""
BACKEND_STOP_TIMEOUT = 30.0
"""Seconds that a backend may take to stop. The `process` backend kills its engine earlier."""
COLLECT_DELAY = 0.5
"""Seconds after an unload in which the last references to the model end, before the heap is trimmed."""


class SettingsLoader:
    """Loads the model of some settings."""

    def __init__(
        self, settings: Settings, plugins: Plugins, engine_host: EngineHost, threads: TimeoutExecutor
    ) -> None:
        """Create a loader. ``threads`` are those of all loaders: each keeps memory that it has freed."""
        backend_config, config = settings.backend_config, settings.server
        self.settings = settings
        self.card: ModelCard | None = None
        self.parser_choices: Mapping[str, ParserChoice] = {}
        self.adapters = AdapterRegistry(
            None,
            backend_config.lora_modules,
            model=backend_config.model if backend_config.enable_lora else None,
            model_names=(config.served_model_name, *config.served_model_aliases),
            directories=config.lora_dirs,
        )
        self._plugins = plugins
        self._engine_host = engine_host
        self._threads = threads
        self._trimmer = HeapTrimmer()
        self._shared: ServerState | None = None

    @property
    def config(self) -> ServerConfig:
        """The options of the model."""
        return self.settings.server

    @property
    def backend_name(self) -> str:
        """Name of the innermost backend."""
        return (self.settings.backend, *self.settings.backend_config.chain)[-1]

    def share(self, shared: ServerState, plugins: Plugins | None = None) -> None:
        """Set what all models share, which `load` needs, and the ``plugins`` if they were loaded again."""
        self._shared = shared
        self._plugins = plugins or self._plugins

    @property
    def shared(self) -> tuple[ServerState, Plugins]:
        """What `share` has set."""
        assert self._shared is not None, "what all models share is set before one is loaded"
        return self._shared, self._plugins

    def load_files(self, plugins: Plugins, card: ModelCard) -> ModelFiles:
        """Load the files of a model that is loaded, with other plugins. Raise `UserError`."""
        check = ModelCheck()
        try:
            return load_model_files(self.settings.server, plugins, card, check)
        finally:
            check.stop()

    def new_backend(self, progress: Callable[[Progress], None], adapters: Sequence[LoraAdapter]) -> Backend:
        """Return the backend, not started yet. Raise `UserError` if it can't be used."""
        context = BackendContext(
            progress=progress,
            plugins=self.settings.plugin_config,
            load_grammar=self._plugins.grammars.load,
            load_drafter=self._plugins.drafters.load,
            engine_host=self._engine_host,
            load_backend=self._plugins.backends.load,
        )
        config = replace(self.settings.backend_config, lora_modules=tuple(adapters))
        backend: Backend = self._plugins.backends.load(self.settings.backend)(config, context)
        check_adapters(backend, config)
        return backend

    async def start(self, backend: Backend) -> StartedModel:
        """Start a backend and load the files of its model. Raise `UserError` if they are invalid."""
        check = ModelCheck()
        try:
            card, _ = await asyncio.gather(backend.start(), asyncio.to_thread(check.start))
            card = replace(card, defaults=choose_defaults(self.settings, card.defaults))
            load = partial(load_model_files, self.settings.server, self._plugins, card, check)
            files = await self._run_in_thread(load)
        finally:
            check.stop()
        return StartedModel(backend, card, files)

    def finish(self, started: StartedModel) -> AppState:
        """Return the state for the requests of a started model."""
        from fllm_api.cli.model_state import create_app_state

        self.adapters.attach(started.backend)
        state = create_app_state(self.settings, self.shared[0], started, self.adapters)
        self.card, self.parser_choices = state.card, state.parser_choices
        return state

    async def load(self) -> AppState:
        """Load the model on demand."""
        backend = self.new_backend(lambda progress: None, self.adapters.loaded)  # noqa: ARG005
        try:
            started = await self.start(backend)
            # Also in a thread: it tokenizes and renders, while other models respond.
            return await self._run_in_thread(partial(self.finish, started))
        except BaseException:  # also a cancelled load, which is passed on
            self.adapters.attach(None)
            await stop_backend(backend)
            raise

    async def unload(self, loaded: AppState) -> None:
        """Stop the backend. Raise `TimeoutError` if that takes too long."""
        self.adapters.attach(None)
        if loaded.request_templates is not None:
            await asyncio.to_thread(loaded.request_templates.stop)
        await stop_backend(loaded.backend)
        # Tokenizers refer to themselves. Python does not know of their many MiB, so it would rarely look.
        asyncio.get_running_loop().call_later(COLLECT_DELAY, gc.collect)
        self._trimmer.schedule()

    async def measure(self, loaded: AppState) -> int:
        """Return the bytes that the engine occupies; 0 if that is not known."""
        stats = await stats_or_none(loaded.backend)
        return 0 if stats is None else stats.memory

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        """Run work in a thread that keeps neither a signal waiting nor the process from exiting.

        Raise `ModelError` if it takes longer than `LOAD_TIMEOUT`.
        """
        try:
            return await self._threads.run(work, time_limit=LOAD_TIMEOUT)
        except TaskTimeout:
            raise ModelError(f"the files of the model take more than {LOAD_TIMEOUT:g} s to load") from None


def choose_defaults(settings: Settings, of_model: SamplingDefaults) -> SamplingDefaults:
    """Return the sampling defaults of requests, and log them: the options precede the model's own."""
    chosen = of_model if settings.sampling is None else settings.sampling
    overrides = asdict(settings.sampling_overrides).items()
    chosen = replace(chosen, **{name: value for name, value in overrides if value is not None})
    if named := [f"{name} {value}" for name, value in asdict(chosen).items() if value is not None]:
        log.info("sampling defaults of requests: %s", ", ".join(named))
    return chosen


async def stop_backend(backend: Backend) -> None:
    """Stop a backend. Raise `TimeoutError` if that takes too long."""
    async with asyncio.timeout(BACKEND_STOP_TIMEOUT):
        await backend.stop()
