"""`GET /health` and `GET /ready`."""

from __future__ import annotations

import asyncio

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from fllm.errors import BackendUnavailable, format_error
from fllm.interfaces import Backend
from fllm.values import EngineStats
from fllm_api.app_state import AppState
from fllm_api.lifecycle.drain import SHUTTING_DOWN, TO_THE_END
from fllm_api.middleware.authentication import PUBLIC
from fllm_api.middleware.request_tracking import UNHEARD
from fllm_api.openapi.responses import errors

ALWAYS_OPEN = {**PUBLIC, **TO_THE_END, **UNHEARD}


STATUS_SECONDS = 10.0
"""A backend that takes longer to say how it is hangs."""


async def status_of(backend: Backend) -> EngineStats:
    """What the backend says; raises `BackendUnavailable` whatever it raises, or if it says nothing."""
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            return await backend.status()
    except BackendUnavailable:
        raise
    except Exception as error:  # a stranger's code; whatever it raises, it is not well
        raise BackendUnavailable(f"the engine does not say how it is: {format_error(error)}") from error


class HealthController(Controller):
    """For whoever keeps the server alive: needs no key."""

    path = "/health"
    tags = ("Server",)
    opt = ALWAYS_OPEN

    @get(media_type="text/plain", responses=errors(503), summary="Ask whether the engine answers")
    async def health(self, server: NamedDependency[AppState]) -> Response[None]:
        """Nothing, if the engine is well; 503 if it is not."""
        await status_of(server.backend)
        return Response(None)


class ReadyController(Controller):
    """For whoever divides requests among servers: needs no key."""

    path = "/ready"
    tags = ("Server",)
    opt = ALWAYS_OPEN

    @get(media_type="text/plain", responses=errors(503), summary="Ask whether requests are accepted")
    async def ready(self, server: NamedDependency[AppState]) -> Response[None]:
        """Nothing, if a request would be taken now; 503, which says why, if not."""
        if server.drain.began:
            raise BackendUnavailable(SHUTTING_DOWN)
        status = await status_of(server.backend)
        if 0 < server.config.max_queue <= status.waiting:
            raise BackendUnavailable(f"the queue is full: {status.waiting} sequences wait")
        return Response(None)
