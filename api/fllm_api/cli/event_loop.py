"""Event loop of commands that send or receive many requests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop factory for `asyncio.Runner`, or ``None`` on platforms without uvloop."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
