"""A route that counts what the server's own process holds, used by ``soak.py``."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable
from typing import Any

from litestar import get

import fllm


@get("/soak")
async def holdings() -> dict[str, int]:
    """Return the event loop's tasks and the objects that the garbage collector tracks, after a collection."""
    gc.collect()
    return {"tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects())}


@fllm.hookimpl
def fllm_routes() -> Iterable[Any]:
    """Register the route."""
    return [holdings]
