"""Rejections of requests whose model can't be loaded now."""

from __future__ import annotations

import math

from litestar.exceptions import HTTPException


class ModelUnavailable(HTTPException):
    """The model of a request is not loaded and will not be soon: 503."""

    def __init__(self, message: str, seconds: float, code: str = "model_unavailable") -> None:
        super().__init__(
            status_code=503,
            detail=message,
            headers={"Retry-After": str(max(math.ceil(seconds), 1))},
            extra={"code": code, "param": "model"},
        )
