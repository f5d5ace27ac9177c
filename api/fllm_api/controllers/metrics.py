"""`GET /metrics`, with ``--enable-metrics``."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Response, get
from litestar.connection import Request
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException

from fllm_api.app_state import ServerState
from fllm_api.lifecycle.backend_status import stats_or_none
from fllm_api.middleware.drain import ALLOWED_WHILE_DRAINING
from fllm_api.middleware.request_tracking import NOT_TRACKED
from fllm_api.model_registry import ModelRegistry
from fllm_api.openapi.responses import errors

SCRAPE = {**ALLOWED_WHILE_DRAINING, **NOT_TRACKED}
"""The ``opt`` of an endpoint that is scraped."""


class MetricsController(Controller):
    """Exports the metrics to scrapers such as Prometheus."""

    path = "/metrics"
    tags = ("Server",)
    opt = SCRAPE

    @get(media_type="text/plain", responses=errors(401, 404), summary="Export the metrics")
    async def metrics(
        self,
        request: Request[Any, Any, State],
        shared: NamedDependency[ServerState],
        models: NamedDependency[ModelRegistry],
    ) -> Response[bytes]:
        """Return the page of the first collector that exports metrics."""
        exporter = shared.metrics_exporter
        if exporter is None:
            raise NotFoundException("no installed plugin exports metrics")
        page = exporter.expose(await stats_or_none(models), request.headers.get("accept", ""))
        # Litestar would add a charset to a media type.
        return Response(page.body, headers={"content-type": page.content_type})
