"""`GET /health`."""

from __future__ import annotations

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from fllm_api.auth import PUBLIC
from fllm_api.controllers.documented import errors
from fllm_api.observing import UNHEARD
from fllm_api.server import Server


class HealthController(Controller):
    """For whoever keeps the server alive: needs no key."""

    path = "/health"
    tags = ("Server",)
    opt = {**PUBLIC, **UNHEARD}

    @get(media_type="text/plain", responses=errors(503), summary="Ask whether the engine answers")
    async def health(self, server: NamedDependency[Server]) -> Response[None]:
        """Nothing, if the engine is well; 503 if it is not."""
        await server.backend.status()
        return Response(None)
