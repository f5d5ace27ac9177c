"""``--request-timeout``: how long a request may take, from its arrival to the end of the answer."""

from __future__ import annotations

import asyncio

from litestar.exceptions import HTTPException

from fllm_api.lifecycle.deadline import Deadline


class Late(HTTPException):
    """The answer is not there in time: 504, which clients take for a failure that another try may mend."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            status_code=504,
            detail=f"the answer took longer than {seconds:g} s, which is this server's limit",
            extra={"code": "timeout"},
        )


def deadline_in(seconds: float) -> Deadline:
    """That of a request which arrives now; 0: it may take as long as it wants."""
    if not seconds:
        return Deadline()
    return Deadline(asyncio.get_running_loop().time() + seconds, Late(seconds))
