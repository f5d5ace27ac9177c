"""Middleware that identifies the client of a request by its API key or its address."""

from __future__ import annotations

from collections.abc import Iterator

from litestar.exceptions import NotAuthorizedException
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from fllm_api.api_keys import ApiKeys
from fllm_api.request_context import context_of

ADMIN = {"admin": True}
"""The ``opt`` of a handler that needs a key of the administrator."""


class AuthenticationMiddleware(ASGIMiddleware):
    """Rejects requests without a valid key if the server has keys; names the client of the others.

    The keys of the admin routes are valid for no other route except those that are `ADMIN_TOO`, and no other
    key is valid for them.
    """

    def __init__(self, keys: ApiKeys, admin_keys: ApiKeys | None = None) -> None:
        self._keys = keys
        self._admin_keys = admin_keys

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Authenticate one request."""
        opt, context = scope["route_handler"].opt, context_of(scope)
        if context.internal:
            if opt.get("admin"):
                raise NotAuthorizedException("a plugin can't use the admin routes")
        elif opt.get("admin"):
            context.client, context.owner = _authenticate(scope, self._admin_keys or ApiKeys(), "admin key")
        elif self._keys.required and not opt.get("public"):
            admin = _find(scope, self._admin_keys) if self._admin_keys and opt.get("admin_too") else None
            context.sees_all = admin is not None
            context.client, context.owner = admin or _authenticate(scope, self._keys, "API key")
        else:
            context.sees_all = not self._keys.required
        if (tracker := getattr(context, "tracker", None)) is not None:
            tracker.client = context.client
        await next_app(scope, receive, send)


def _authenticate(scope: Scope, keys: ApiKeys, kind: str) -> tuple[str, str]:
    """Return the client and the owner of the key that a request sends.

    Raise `NotAuthorizedException` (401).
    """
    if (found := _find(scope, keys)) is not None:
        return found
    raise NotAuthorizedException(
        f"a valid {kind} is needed: Authorization: Bearer <key>, or x-api-key: <key>",
        headers={"WWW-Authenticate": "Bearer"},
        extra={"code": "invalid_api_key"},
    )


def _find(scope: Scope, keys: ApiKeys) -> tuple[str, str] | None:
    for key in _sent_keys(scope):
        if (client := keys.client(key)) is not None:
            return client, keys.owner(key)
    return None


def _sent_keys(scope: Scope) -> Iterator[bytes]:
    """Yield the Bearer token, then the key of ``x-api-key``, as sent. Repeated headers have none."""
    match _values(scope, b"authorization"):
        case [value]:
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield token.lstrip(b" ")
    match _values(scope, b"x-api-key"):
        case [value]:
            yield value


def _values(scope: Scope, header: bytes) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == header]
