"""Event loop of commands that send or receive many requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's loop factory for `asyncio.Runner`."""
    import uvloop

    return uvloop.new_event_loop
