"""The Litestar application, assembled from the started components without global state."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.types import Middleware

from fllm.errors import ConfigError
from fllm.interfaces import Collector
from fllm_api.app_state import AppState
from fllm_api.application import Application
from fllm_api.controllers.chat import ChatController
from fllm_api.controllers.completions import CompletionsController
from fllm_api.controllers.engine_requests import engine_request
from fllm_api.controllers.health import HealthController, ReadyController
from fllm_api.controllers.lora import LoraController
from fllm_api.controllers.metrics import MetricsController
from fllm_api.controllers.models import ModelsController
from fllm_api.controllers.plugin_routes import with_plugin_routes
from fllm_api.controllers.version import VersionController
from fllm_api.cors import Cors
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
from fllm_api.middleware.payload_logging import PayloadLoggingMiddleware
from fllm_api.middleware.prompt_length import PromptLengthMiddleware
from fllm_api.middleware.request_tracking import RequestTrackingMiddleware
from fllm_api.openapi.schema import openapi_config
from fllm_api.request_context import record_response_start


def create_app(server: AppState) -> Litestar:
    """Return the application with the server's own routes and those of plugins.

    Raise `ConfigError` if a route begins with the path prefix.
    """
    admission = Admission(sequence_capacity(server.card, server.config), server.config.limits)
    app = with_plugin_routes(server.plugins, partial(_build, server, admission))
    root_path = server.config.root_path
    if root_path and any(f"{route.path}/".startswith(f"{root_path}/") for route in app.routes):
        raise ConfigError(f"--root-path {root_path}: this server has routes that begin with it")
    return app


def _build(server: AppState, admission: Admission, routes: Sequence[Any]) -> Litestar:
    config = server.config
    collectors = [IsolatedCollector(each, server.plugins.owner_of(each)) for each in server.collectors]
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
            *routes,
        ],
        dependencies={
            "server": Provide(lambda: server, sync_to_thread=False),
            "engine_request": Provide(engine_request, sync_to_thread=False),
        },
        request_class=ApiRequest,
        before_request=require_json,
        request_max_body_size=config.max_body_bytes,
        exception_handlers={Exception: handle_exception},
        middleware=_middlewares(server, admission, collectors),
        before_send=[record_response_start],
        lifespan=[collector_ticker(server.backend, collectors)],
        openapi_config=openapi_config(config.root_path),
        logging_config=None,
    )


def _middlewares(server: AppState, admission: Admission, collectors: Sequence[Collector]) -> list[Middleware]:
    """Return the middlewares, outermost first. A body is read only after its request has passed all."""
    config = server.config
    memory = BodyMemory(
        config.max_body_memory,
        max_wait=config.read_timeout,
        keeps_bytes=config.enable_payload_logging,
        turns=server.turns,
    )
    return [
        # First: requests that the middlewares below reject are also reported to collectors and logged.
        RequestTrackingMiddleware(collectors),
        # Before everything that costs something or that counts per client.
        AuthenticationMiddleware(config.keys),
        # Before admission, so that a draining server rejects requests whether or not it has room.
        DrainMiddleware(server.drain, config.request_timeout),
        # After the client is known: its limits are per client.
        AdmissionMiddleware(admission),
        # After everything that rejects a request by its headers, so that its body occupies no memory.
        BodyMemoryMiddleware(memory),
        # After the memory for the body is reserved, which this may return early.
        PromptLengthMiddleware(server.tokenizer, server.card),
        # Last: only bodies that are read are logged.
        *([PayloadLoggingMiddleware()] if config.enable_payload_logging else []),
    ]
