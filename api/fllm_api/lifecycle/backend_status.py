"""Check the status of a backend, with a timeout."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from fllm.containment import mapped
from fllm.errors import BackendUnavailable, format_error
from fllm.values import EngineStats

STATUS_TIMEOUT = 10.0
"""Seconds after which a backend that has not returned its status counts as hanging."""


class HasStatus(Protocol):
    """A backend, or all backends of a server."""

    async def status(self) -> EngineStats:
        """Return the statistics. Raise `BackendUnavailable` if an engine is not healthy."""
        ...


async def backend_status(backend: HasStatus) -> EngineStats:
    """Return the backend's status; raise `BackendUnavailable` if it raises anything or takes too long."""
    with mapped(_unavailable, passing=(BackendUnavailable,)):
        async with asyncio.timeout(STATUS_TIMEOUT):
            return await backend.status()


async def stats_or_none(backend: HasStatus) -> EngineStats | None:
    """Return the backend's status, or ``None`` if the status check fails."""
    with suppress(BackendUnavailable):
        return await backend_status(backend)
    return None


def _unavailable(error: BaseException) -> BackendUnavailable:
    return BackendUnavailable(f"engine status check failed: {format_error(error)}")
