"""API keys."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler

PUBLIC = {"public": True}
"""The ``opt`` of a handler that needs no key."""


def require_key(
    keys: tuple[str, ...],
) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], None]:
    """A guard that wants one of the keys as Bearer token."""
    encoded = [key.encode() for key in keys]

    def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if handler.opt.get("public"):
            return
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        # All are compared, each in constant time: how long it takes tells nothing of them.
        given = token.strip().encode("latin-1")
        matches = [hmac.compare_digest(given, key) for key in encoded]
        if scheme.lower() != "bearer" or not any(matches):
            raise NotAuthorizedException(
                "a valid API key is needed: Authorization: Bearer <key>",
                headers={"WWW-Authenticate": "Bearer"},
                extra={"code": "invalid_api_key"},
            )

    return guard
