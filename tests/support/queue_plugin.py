"""A route that returns the engine's running and waiting sequences: ``--plugin queue_plugin.py``."""

from collections.abc import Iterable
from typing import Any

import fllm


@fllm.hookimpl
def fllm_routes() -> Iterable[Any]:
    from litestar import get
    from litestar.di import NamedDependency

    @get("/queue")
    async def queue(server: NamedDependency[fllm.Serving]) -> dict[str, int]:
        status = await server.backend.status()
        return {"running": status.running, "waiting": status.waiting}

    yield queue
