"""A route that counts what the server's own process holds: for ``soak.py`` alone."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable
from typing import Any

from litestar import get

import fllm


@get("/soak")
async def holdings() -> dict[str, int]:
    """Tasks of the event loop, and objects that the garbage collector knows, after a collection."""
    gc.collect()
    return {"tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects())}


@fllm.hookimpl
def fllm_routes() -> Iterable[Any]:
    """The one route."""
    return [holdings]
