"""Who asks: a holder of a key, or an address."""

from __future__ import annotations

from litestar.datastructures import Headers
from litestar.exceptions import NotAuthorizedException
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from fllm_api.api_keys import Keys

PUBLIC = {"public": True}
"""The ``opt`` of a handler that needs no key."""


class Authenticated(ASGIMiddleware):
    """Lets nobody pass without a key where there are keys, before a byte of the body is read.

    Whoever passes is known as ``scope["state"]["client"]``: ``key:`` and a part of the key's hash, or
    ``ip:`` and the address.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Name the client of one request, or refuse it."""
        scope["state"]["client"] = self._client(scope)
        await next_app(scope, receive, send)

    def _client(self, scope: Scope) -> str:
        if not self._keys.required or scope["route_handler"].opt.get("public"):
            return _address(scope)
        client = self._keys.client(_token(scope))
        if client is None:
            raise NotAuthorizedException(
                "a valid API key is needed: Authorization: Bearer <key>",
                headers={"WWW-Authenticate": "Bearer"},
                extra={"code": "invalid_api_key"},
            )
        return client


def _token(scope: Scope) -> bytes:
    """The Bearer token; without one it is empty, which is no key."""
    scheme, _, token = Headers.from_scope(scope).get("authorization", "").partition(" ")
    return token.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return f"ip:{client[0]}" if client else "ip:unknown"
