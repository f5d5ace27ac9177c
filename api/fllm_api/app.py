"""The application: put together from the started parts, with nothing global."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.di import Provide

from fllm_api.app_state import AppState
from fllm_api.config import ServerConfig
from fllm_api.controllers.chat import ChatController
from fllm_api.controllers.completions import CompletionsController
from fllm_api.controllers.health import HealthController, ReadyController
from fllm_api.controllers.metrics import MetricsController
from fllm_api.controllers.models import ModelsController
from fllm_api.controllers.plugin_routes import with_routes_of
from fllm_api.controllers.version import VersionController
from fllm_api.errors import respond
from fllm_api.intake.json_body import ApiRequest
from fllm_api.lifecycle.drain import Draining
from fllm_api.limits.admission import Admission, capacity
from fllm_api.metrics.collector_ticker import ticking
from fllm_api.middleware.admission import Admitted
from fllm_api.middleware.authentication import Authenticated
from fllm_api.middleware.payload_logging import PayloadLog
from fllm_api.middleware.request_tracking import Observed
from fllm_api.openapi.schema import openapi_config
from fllm_api.request_id import HEADER, begin_response


def create_app(server: AppState) -> Litestar:
    """The routes of the contract, and those of plugins."""
    admission = Admission(capacity(server.card, server.config), server.config.limits)
    return with_routes_of(server.plugins, partial(_build, server, admission))


def _build(server: AppState, admission: Admission, routes: Sequence[Any]) -> Litestar:
    config = server.config
    return Litestar(
        route_handlers=[
            ChatController,
            CompletionsController,
            ModelsController,
            VersionController,
            HealthController,
            ReadyController,
            *([MetricsController] if config.enable_metrics else []),
            *routes,
        ],
        dependencies={"server": Provide(lambda: server, sync_to_thread=False)},
        request_class=ApiRequest,
        request_max_body_size=config.max_body_bytes,
        exception_handlers={Exception: respond},
        middleware=[
            Observed(server.collectors),
            Authenticated(config.keys),
            Draining(server.drain, config.request_timeout),
            Admitted(admission),
            *([PayloadLog()] if config.enable_payload_logging else []),
        ],
        before_send=[begin_response],
        lifespan=[ticking(server)],
        cors_config=_cors(config),
        openapi_config=openapi_config(),
        logging_config=None,
    )


def _cors(config: ServerConfig) -> CORSConfig | None:
    if not config.allowed_origins:
        return None
    return CORSConfig(
        allow_origins=list(config.allowed_origins),
        # Any site could otherwise act with the visitor's credentials.
        allow_credentials="*" not in config.allowed_origins,
        expose_headers=[HEADER],
    )
