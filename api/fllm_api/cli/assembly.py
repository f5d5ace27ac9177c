"""Build the HTTP server over a started backend. Heavy to import: imported while the backend loads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from litestar import Litestar
from msgspec.structs import replace

from fllm.errors import ConfigError, PluginError
from fllm.interfaces import MetricsContext
from fllm.plugins.loader import ENGINE_HOOKS, Plugins, load_plugins
from fllm.plugins.source_files import PluginSources
from fllm.private_directory import load_secret
from fllm_api.app import create_models_app
from fllm_api.app_state import AppState, ServerState
from fllm_api.cli.model_files import StartedModel
from fllm_api.cli.model_loader import SettingsLoader
from fllm_api.cli.model_size import estimate_memory
from fllm_api.cli.reload import NewApp, ReloadableApp
from fllm_api.listener import ConnectionTimeouts, Listener
from fllm_api.model_registry import ModelRegistry, ServedModel
from fllm_api.models.model import Model
from fllm_api.models.pool import ModelPool
from fllm_api.sample_recorder import SampleRecorder

MAX_TOKENS = 128 * 1024
"""Highest number of tokens that the metrics of models tell apart whose context is not known at the start."""

log = logging.getLogger("fllm.server")


def create_listener(
    loaders: Sequence[SettingsLoader], plugins: Plugins, started: StartedModel | None
) -> tuple[Listener, ModelPool[AppState]]:
    """Return the HTTP server for one model that is ``started``, or for models that are loaded on demand.

    Raise `UserError` if an option does not fit the model.
    """
    first = loaders[0].settings
    shared = create_server_state(loaders, plugins, started)
    for each in loaders:
        each.share(shared)
    registry = create_registry(loaders, shared, started)
    config = first.server
    app = create_models_app(shared, registry)
    listener = Listener(
        app
        if started is None or not config.reload
        else make_reloadable(app, loaders[0], plugins, shared, registry, started),
        shared.drain,
        ConnectionTimeouts(read=config.read_timeout, write=config.write_timeout),
        max_connections=config.max_connections,
        shutdown_timeout=first.shutdown_timeout,
        trusted_proxies=config.trusted_proxies,
        tls=config.tls,
    )
    return listener, registry.pool


def make_reloadable(
    app: Litestar,
    loader: SettingsLoader,
    plugins: Plugins,
    shared: ServerState,
    registry: ModelRegistry,
    started: StartedModel,
) -> ReloadableApp:
    """Return the application of one model, which imports plugins again if their files change."""
    sources = PluginSources(plugins.config)

    async def build() -> NewApp:
        """Return an application with the new code. Raise an error if it can't be used."""
        new = load_plugins(plugins.config)
        new.check_options()
        raise_errors(new, sources)
        files = await asyncio.to_thread(loader.load_files, new, started.card)
        collectors = new.collectors(metrics_context([loader], new, started))
        state = replace(shared, plugins=new, collectors=collectors)
        model = registry.models[0].model
        undo = partial(_use, loader, model, *loader.shared, model.loaded)

        def create() -> NewApp:
            loader.share(state, new)
            loaded = loader.finish(replace(started, files=files))
            built = create_models_app(state, registry)
            raise_errors(new, sources)
            return NewApp(built, partial(_use, loader, model, state, new, loaded), undo)

        try:
            return await asyncio.to_thread(create)  # it takes longer than the event loop may stand still
        except BaseException:
            undo()
            raise

    return ReloadableApp(app, sources, build)


def _use(
    loader: SettingsLoader,
    model: Model[AppState],
    shared: ServerState,
    plugins: Plugins,
    loaded: AppState | None,
) -> None:
    loader.share(shared, plugins)
    model.loaded = loaded


def raise_errors(plugins: Plugins, sources: PluginSources) -> None:
    """Raise `PluginError` if one of the plugins that are being developed can't be used."""
    for report in plugins.reports:
        if report.name not in sources.names:
            continue
        if report.error:
            raise PluginError(f"{report.title}: {report.error}{f' ({report.where})' if report.where else ''}")
        if not set(report.hooks).isdisjoint(ENGINE_HOOKS):
            log.warning("a change of a backend or a grammar of plugin %s needs a restart", report.title)


def create_server_state(
    loaders: Sequence[SettingsLoader], plugins: Plugins, started: StartedModel | None
) -> ServerState:
    """Return what all models share."""
    first = loaders[0].settings
    metrics = metrics_context(loaders, plugins, started)
    record = first.server.record
    state = ServerState(
        config=first.server,
        plugins=plugins,
        collectors=plugins.collectors(metrics),
        recorder=None if record is None else SampleRecorder(record),
    )
    directories = [each.settings.backend_config.kv_cache_dir for each in loaders]
    if (directory := next(filter(None, directories), None)) is None or not first.server.keys.required:
        return state
    # Clients keep their salts, or else no block on disk could be found again.
    secret = load_secret(directory)
    first.server.keys.keep_names(secret)
    return replace(state, cache_secret=secret)


def metrics_context(
    loaders: Sequence[SettingsLoader], plugins: Plugins, started: StartedModel | None
) -> MetricsContext:
    """Return what the collectors of plugins are made with."""
    names = [each.config.served_model_name for each in loaders]
    return MetricsContext(
        model_name=names[0],
        max_model_len=MAX_TOKENS if started is None else started.card.max_model_len,
        config=loaders[0].settings.metrics,
        plugin_usage=plugins.usage.used,
        model_names=tuple(names) if started is None else (),
    )


def create_registry(
    loaders: Sequence[SettingsLoader], shared: ServerState, started: StartedModel | None
) -> ModelRegistry:
    """Return the models by name. Without a reason to unload it, the only model stays loaded."""
    models = [
        ServedModel(
            each,
            Model(
                each.config.served_model_name,
                each,
                size=estimate_memory(each.settings),
                pinned=each.settings.pinned,
                idle_timeout=each.settings.idle_timeout,
            ),
        )
        for each in loaders
    ]
    config = shared.config
    pool = ModelPool(
        [each.model for each in models], budget=config.memory_budget, max_waiting=config.max_queue
    )
    if (problem := pool.pin_problem()) is not None and any(each.settings.pinned for each in loaders):
        raise ConfigError(f"--memory-budget: {problem}")
    if started is not None:
        pool.adopt(models[0].model, loaders[0].finish(started))
    fixed = started is not None and config.admin_keys is None and not loaders[0].settings.idle_timeout
    return ModelRegistry(models, pool, created=shared.created, strict=config.strict_model_name, fixed=fixed)
