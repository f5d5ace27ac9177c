"""`GET /metrics`, with ``--enable-metrics``."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Response, get
from litestar.connection import Request
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException

from fllm_api.app_state import AppState
from fllm_api.lifecycle.drain import TO_THE_END
from fllm_api.metrics.collector_ticker import status_of
from fllm_api.middleware.request_tracking import UNHEARD
from fllm_api.openapi.responses import errors

ABOUT_THE_SERVER = {**TO_THE_END, **UNHEARD}


class MetricsController(Controller):
    """For scrapers."""

    path = "/metrics"
    tags = ("Server",)
    opt = ABOUT_THE_SERVER

    @get(media_type="text/plain", responses=errors(401, 404), summary="Expose the metrics")
    async def metrics(
        self, request: Request[Any, Any, State], server: NamedDependency[AppState]
    ) -> Response[bytes]:
        """The page of the first collector that can be scraped."""
        exposer = server.exposer
        if exposer is None:
            raise NotFoundException("no plugin that is installed exposes metrics")
        page = exposer.expose(await status_of(server.backend), request.headers.get("accept", ""))
        # As a media type, a charset would be added to it.
        return Response(page.body, headers={"content-type": page.content_type})
