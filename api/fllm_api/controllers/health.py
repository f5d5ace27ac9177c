"""`GET /health` and `GET /ready`."""

from __future__ import annotations

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from fllm.errors import BackendUnavailable
from fllm_api.auth import PUBLIC
from fllm_api.controllers.documented import errors
from fllm_api.draining import SHUTTING_DOWN, TO_THE_END
from fllm_api.observing import UNHEARD
from fllm_api.server import Server

ALWAYS_OPEN = {**PUBLIC, **TO_THE_END, **UNHEARD}


class HealthController(Controller):
    """For whoever keeps the server alive: needs no key."""

    path = "/health"
    tags = ("Server",)
    opt = ALWAYS_OPEN

    @get(media_type="text/plain", responses=errors(503), summary="Ask whether the engine answers")
    async def health(self, server: NamedDependency[Server]) -> Response[None]:
        """Nothing, if the engine is well; 503 if it is not."""
        await server.backend.status()
        return Response(None)


class ReadyController(Controller):
    """For whoever divides requests among servers: needs no key."""

    path = "/ready"
    tags = ("Server",)
    opt = ALWAYS_OPEN

    @get(media_type="text/plain", responses=errors(503), summary="Ask whether requests are accepted")
    async def ready(self, server: NamedDependency[Server]) -> Response[None]:
        """Nothing, if a request would be taken now; 503, which says why, if not."""
        if server.drain.began:
            raise BackendUnavailable(SHUTTING_DOWN)
        status = await server.backend.status()
        if 0 < server.config.max_queue <= status.waiting:
            raise BackendUnavailable(f"the queue is full: {status.waiting} sequences wait")
        return Response(None)
