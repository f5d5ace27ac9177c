"""Middleware that identifies the client of a request by its API key or its address."""

from __future__ import annotations

from litestar.exceptions import NotAuthorizedException
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from fllm_api.api_keys import ApiKeys
from fllm_api.request_context import context_of

PUBLIC = {"public": True}
"""The ``opt`` of a handler that needs no key."""


class AuthenticationMiddleware(ASGIMiddleware):
    """Rejects requests without a valid key if the server has keys; names the client of the others."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Authenticate one request."""
        if self._keys.required and not scope["route_handler"].opt.get("public"):
            context_of(scope).client = self._authenticate(scope)
        await next_app(scope, receive, send)

    def _authenticate(self, scope: Scope) -> str:
        client = self._keys.client(_bearer_token(scope))
        if client is None:
            raise NotAuthorizedException(
                "a valid API key is needed: Authorization: Bearer <key>",
                headers={"WWW-Authenticate": "Bearer"},
                extra={"code": "invalid_api_key"},
            )
        return client


def _bearer_token(scope: Scope) -> bytes:
    """Return the Bearer token as it was sent, or an empty one, which is never a valid key."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return b""
    scheme, _, token = values[0].partition(b" ")
    return token.lstrip(b" ") if scheme.lower() == b"bearer" else b""
