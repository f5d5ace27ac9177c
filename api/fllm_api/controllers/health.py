"""`GET /health` and `GET /ready`."""

from __future__ import annotations

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from fllm.errors import BackendUnavailable
from fllm.serving import PUBLIC
from fllm_api.app_state import ServerState
from fllm_api.lifecycle.drain import SHUTTING_DOWN
from fllm_api.middleware.drain import ALLOWED_WHILE_DRAINING
from fllm_api.middleware.request_tracking import NOT_TRACKED
from fllm_api.model_registry import ModelRegistry
from fllm_api.openapi.responses import errors

PROBE = {**PUBLIC, **ALLOWED_WHILE_DRAINING, **NOT_TRACKED}
"""The ``opt`` of a health check."""


class HealthController(Controller):
    """The liveness probe. It needs no key."""

    path = "/health"
    tags = ("Server",)
    opt = PROBE

    @get(media_type="text/plain", responses=errors(503), summary="Check whether the engine responds")
    async def health(self, models: NamedDependency[ModelRegistry]) -> Response[None]:
        """Return an empty response if the engine of each loaded model is healthy, else 503."""
        await models.check_health()
        return Response(None)


class ReadyController(Controller):
    """The readiness probe of load balancers. It needs no key."""

    path = "/ready"
    tags = ("Server",)
    opt = PROBE

    @get(media_type="text/plain", responses=errors(503), summary="Check whether requests are accepted")
    async def ready(
        self, shared: NamedDependency[ServerState], models: NamedDependency[ModelRegistry]
    ) -> Response[None]:
        """Return an empty response if a request would be accepted now, else 503 with the reason."""
        if shared.drain.started:
            raise BackendUnavailable(SHUTTING_DOWN)
        status = await models.status()
        if len(status.models) == 1:  # it is not fixed, so that `status` also returns if its engine is down
            await models.check_health()
        if 0 < shared.config.max_queue <= status.waiting:
            raise BackendUnavailable(f"the queue is full: {status.waiting} sequences are waiting")
        return Response(None)
