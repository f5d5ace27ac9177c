"""The Litestar application, assembled from the started components without global state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.types import Middleware

from fllm.errors import ConfigError
from fllm.interfaces import Collector
from fllm.plugins.loader import PluginReport, Plugins
from fllm.serving import RoutesContext
from fllm_api.app_state import AppState, ServerState
from fllm_api.application import Application
from fllm_api.controllers.admin import AdminController
from fllm_api.controllers.admin_replicas import AdminReplicasController
from fllm_api.controllers.chat import ChatController
from fllm_api.controllers.completions import CompletionsController
from fllm_api.controllers.health import HealthController, ReadyController
from fllm_api.controllers.lora import LoraController
from fllm_api.controllers.metrics import MetricsController
from fllm_api.controllers.model_selection import ModelSelection
from fllm_api.controllers.models import ModelsController
from fllm_api.controllers.plugin_routes import Lifespan, with_plugin_routes
from fllm_api.controllers.version import VersionController
from fllm_api.cors import Cors
from fllm_api.data_dir import DataDir
from fllm_api.errors import handle_exception
from fllm_api.intake.json_body import ApiRequest, require_json
from fllm_api.limits.admission import Admission, sequence_capacity
from fllm_api.limits.body_memory import BodyMemory
from fllm_api.metrics.collector_ticker import collector_ticker
from fllm_api.metrics.isolated_collector import IsolatedCollector
from fllm_api.middleware.admission import AdmissionMiddleware
from fllm_api.middleware.authentication import AuthenticationMiddleware
from fllm_api.middleware.body_memory import BodyMemoryMiddleware
from fllm_api.middleware.drain import DrainMiddleware
from fllm_api.middleware.model_lease import ModelLeaseMiddleware
from fllm_api.middleware.payload_logging import PayloadLoggingMiddleware
from fllm_api.middleware.prompt_length import PromptLengthMiddleware
from fllm_api.middleware.request_tracking import RequestTrackingMiddleware
from fllm_api.model_registry import ModelRegistry, single_model
from fllm_api.openapi.schema import openapi_config
from fllm_api.request_context import context_of, record_response_start
from fllm_api.serving.description import describe_server
from fllm_api.serving.request_serving import RequestServing, request_client
from fllm_api.serving.running_server import BackgroundServer


def create_app(server: AppState) -> Litestar:
    """Return the application for one model that is loaded; see `create_models_app`."""
    return create_models_app(ServerState(**server.shared_fields), single_model(server))


def create_models_app(shared: ServerState, models: ModelRegistry) -> Litestar:
    """Return the application with the server's own routes and those of plugins.

    Raise `ConfigError` if a route begins with the path prefix.
    """
    cards = [each.loader.card for each in models.models]
    admission = Admission(
        sequence_capacity(cards, shared.config), shared.config.limits, shared.config.owner_limits
    )
    collectors = [
        _isolated(shared.plugins, each, shared.plugins.owner_of(each)) for each in shared.collectors
    ]
    background = BackgroundServer(models, admission, shared.drain, collectors)
    build = partial(_build, shared, models, admission, collectors)
    context = RoutesContext(
        server=background,
        data_dir=DataDir(shared.config).open,
        describe=partial(describe_server, shared, models, shared.plugins.page_panels()),
    )
    app = with_plugin_routes(
        shared.plugins, build, context, lambda *each: collectors.append(_isolated(shared.plugins, *each))
    )
    background.app = app
    root_path = shared.config.root_path
    if root_path and any(f"{route.path}/".startswith(f"{root_path}/") for route in app.routes):
        raise ConfigError(f"--root-path {root_path}: this server has routes that begin with it")
    return app


def _build(
    shared: ServerState,
    models: ModelRegistry,
    admission: Admission,
    collectors: Sequence[IsolatedCollector],
    routes: Sequence[Any],
    lifespans: Sequence[Lifespan],
) -> Litestar:
    config = shared.config
    return Application(
        root_path=config.root_path,
        cors=Cors(config.allowed_origins),
        collectors=collectors,
        route_handlers=[
            ChatController,
            CompletionsController,
            ModelsController,
            VersionController,
            HealthController,
            ReadyController,
            *([MetricsController] if config.enable_metrics else []),
            *([LoraController] if config.enable_runtime_lora_loading else []),
            *([AdminController, AdminReplicasController] if config.admin_keys else []),
            *routes,
        ],
        dependencies={
            "server": _server_of_request(models, config.sse_keep_alive),
            "client": Provide(request_client, sync_to_thread=False),
            "shared": Provide(lambda: shared, sync_to_thread=False),
            "models": Provide(lambda: models, sync_to_thread=False),
        },
        request_class=ApiRequest,
        before_request=require_json,
        request_max_body_size=config.max_body_bytes,
        exception_handlers={Exception: handle_exception},
        middleware=_middlewares(shared, models, admission, collectors),
        before_send=[record_response_start],
        lifespan=[
            collector_ticker(models, collectors),
            *map(_ignoring_app, [*([shared.recorder.lifespan] if shared.recorder else []), *lifespans]),
        ],
        openapi_config=openapi_config(config.root_path),
        logging_config=None,
    )


def _isolated(plugins: Plugins, collector: Collector, owner: PluginReport | None) -> IsolatedCollector:
    meter = plugins.usage.meter(owner.name if owner else "", "collector", type(collector).__name__)
    return IsolatedCollector(collector, owner, meter)


def _ignoring_app(open_resources: Lifespan) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    """Return a lifespan as Litestar takes it."""
    return lambda _: open_resources()


def _server_of_request(models: ModelRegistry, keep_alive: float) -> Provide:
    """Return what gives a request its ``server``, with the model that it names."""
    selection, only = ModelSelection(models, keep_alive), models.models[0].model

    async def select(request: ApiRequest) -> RequestServing:
        return RequestServing(await selection.select(request), context_of(request.scope), request)

    def serve(request: ApiRequest) -> RequestServing:
        assert only.loaded is not None, "it is loaded before the server starts"
        return RequestServing(only.loaded, context_of(request.scope), request)

    return Provide(select) if models.selects else Provide(serve, sync_to_thread=False)


def _middlewares(
    shared: ServerState, models: ModelRegistry, admission: Admission, collectors: Sequence[Collector]
) -> list[Middleware]:
    """Return the middlewares, outermost first. A body is read only after its request has passed all."""
    config = shared.config
    memory = BodyMemory(
        config.max_body_memory,
        max_wait=config.read_timeout,
        keeps_bytes=config.enable_payload_logging,
        turns=shared.turns,
    )
    return [
        # First: requests that the middlewares below reject are also reported to collectors and logged.
        RequestTrackingMiddleware(collectors, shared.plugins.usage, names_models=models.selects),
        # Before everything that costs something or that counts per client.
        AuthenticationMiddleware(config.keys, config.admin_keys),
        # Before admission, so that a draining server rejects requests whether or not it has room.
        DrainMiddleware(shared.drain, config.request_timeout),
        # After the client is known: its limits are per client.
        AdmissionMiddleware(admission),
        # After everything that rejects a request by its headers, so that its body occupies no memory.
        BodyMemoryMiddleware(memory),
        # After the memory for the body is reserved, which this may return early.
        *_prompt_length(models),
        # Only bodies that are read are logged.
        *([PayloadLoggingMiddleware()] if config.enable_payload_logging else []),
        # Last: what a handler sends may follow what was sent while the request waited for its model.
        *([ModelLeaseMiddleware()] if models.selects else []),
    ]


def _prompt_length(models: ModelRegistry) -> list[Middleware]:
    """Return the check of prompts while they are read, if the model of a request is known by then."""
    only = models.models[0].model.loaded
    return [] if models.selects or only is None else [PromptLengthMiddleware(only.tokenizer, only.card)]
