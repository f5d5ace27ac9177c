"""The event loop of commands that serve or ask much."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one; for `asyncio.Runner`."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
