"""``--request-timeout``: the time limit from the arrival of a request to the end of its response."""

from __future__ import annotations

import asyncio

from litestar.exceptions import HTTPException

from fllm_api.lifecycle.deadline import Deadline


class RequestTimeout(HTTPException):
    """The response was not complete in time: 504, which clients treat as a failure that may be retried."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            status_code=504,
            detail=f"the request took longer than {seconds:g} s, which is this server's limit",
            extra={"code": "timeout"},
        )


def deadline_in(seconds: float) -> Deadline:
    """Return the deadline of a request that arrives now; 0 means no limit."""
    if not seconds:
        return Deadline()
    return Deadline(asyncio.get_running_loop().time() + seconds, RequestTimeout(seconds))
