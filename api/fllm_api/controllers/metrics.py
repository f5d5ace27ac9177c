"""`GET /metrics`, with ``--enable-metrics``."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Response, get
from litestar.connection import Request
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException

from fllm.errors import BackendError
from fllm.values import Status
from fllm_api.controllers.documented import errors
from fllm_api.server import Server


class MetricsController(Controller):
    """For scrapers."""

    path = "/metrics"
    tags = ("Server",)

    @get(media_type="text/plain", responses=errors(401, 404), summary="Expose the metrics")
    async def metrics(
        self, request: Request[Any, Any, State], server: NamedDependency[Server]
    ) -> Response[bytes]:
        """The page of the first collector that can be scraped."""
        exposer = server.exposer
        if exposer is None:
            raise NotFoundException("no plugin that is installed exposes metrics")
        page = exposer.expose(await _status(server), request.headers.get("accept", ""))
        # As a media type, a charset would be added to it.
        return Response(page.body, headers={"content-type": page.content_type})


async def _status(server: Server) -> Status | None:
    try:
        return await server.backend.status()
    except BackendError:
        return None
