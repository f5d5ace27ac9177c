"""Check the status of a backend, with a timeout."""

from __future__ import annotations

import asyncio

from fllm.containment import mapped
from fllm.errors import BackendUnavailable, format_error
from fllm.interfaces import Backend
from fllm.values import EngineStats

STATUS_TIMEOUT = 10.0
"""Seconds after which a backend that has not returned its status counts as hanging."""


async def backend_status(backend: Backend) -> EngineStats:
    """Return the backend's status; raise `BackendUnavailable` if it raises anything or takes too long."""
    with mapped(_unavailable, passing=(BackendUnavailable,)):
        async with asyncio.timeout(STATUS_TIMEOUT):
            return await backend.status()


def _unavailable(error: BaseException) -> BackendUnavailable:
    return BackendUnavailable(f"engine status check failed: {format_error(error)}")
