"""The Litestar application with what precedes routing: CORS, HEAD, a path prefix, a log of unknown paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from litestar import Litestar
from litestar.enums import HttpMethod, ScopeType
from litestar.exceptions import MethodNotAllowedException, NotFoundException
from litestar.types import (
    HTTPScope,
    LifeSpanReceive,
    LifeSpanScope,
    LifeSpanSend,
    Message,
    Receive,
    Scope,
    Send,
)
from litestar.utils import normalize_path

from fllm.interfaces import Collector
from fllm_api.admin_paths import routable_path
from fllm_api.cors import Cors
from fllm_api.middleware.request_tracking import report_unrouted
from fllm_api.request_context import context_of


class Application(Litestar):
    """Handles HEAD like GET on every route, plugins' included, and reports requests for unknown paths."""

    def __init__(
        self, *, root_path: str, cors: Cors, collectors: Sequence[Collector], **settings: Any
    ) -> None:
        super().__init__(**settings)
        self._root_path = root_path
        self._cors = cors
        self._collectors = collectors

    async def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> None:
        """Handle one request, or the events of startup and shutdown."""
        if scope["type"] != ScopeType.HTTP:
            await super().__call__(scope, receive, send)
            return
        await self._handle_request(cast(HTTPScope, scope), cast(Receive, receive), cast(Send, send))

    async def _handle_request(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})
        context = context_of(scope)
        if scope["method"] == HttpMethod.OPTIONS:
            headers = self._cors.preflight_headers(scope["headers"])
            if headers is not None:
                await _send_preflight_response(send, headers)
                return
        send = _with_headers(send, self._cors.response_headers(scope["headers"]))
        scope["path"] = routable_path(_without_prefix(scope["path"], self._root_path))
        if scope["method"] == HttpMethod.OPTIONS:
            send = _with_allow(send, self._methods(scope["path"]))
        if scope["method"] == HttpMethod.HEAD and self._is_only_get(scope["path"]):
            # A copy: the listener reads the method of the original.
            scope = cast(HTTPScope, {**scope, "method": "GET"})
            send = _send_head_only(send)
        await super().__call__(scope, receive, send)
        is_routed = "route_handler" in cast(dict[str, Any], scope)
        if not is_routed and (context.status or 0) >= 400:
            report_unrouted(scope, self._collectors)

    def _is_only_get(self, path: str) -> bool:
        """Return whether a path is routed for GET, and not for HEAD."""
        methods = self._methods(path)
        return "GET" in methods and "HEAD" not in methods

    def _methods(self, path: str) -> set[str]:
        """Return the methods that a path is routed for; none if it is unknown, or if a plugin takes all."""
        try:
            self.asgi_router.handle_routing(path=normalize_path(path), method=cast(Any, "TRACE"))
        except MethodNotAllowedException as error:
            return set((error.headers or {})["allow"].split(", "))
        except NotFoundException:
            pass
        return set()


def _without_prefix(path: str, prefix: str) -> str:
    """Return a path without the prefix, which a proxy may or may not have removed."""
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        return path[len(prefix) :] or "/"
    return path


def _with_headers(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    """Return ``send`` with more headers. A plugin's own take precedence; twice they would be invalid."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]} - {b"vary"}
            added = [header for header in headers if header[0] not in present]
            message["headers"] = [*message["headers"], *added]
        await send(message)

    return send_with_headers if headers else send


def _with_allow(send: Send, methods: set[str]) -> Send:
    """Return ``send`` with all methods in ``Allow``: Litestar names those of the first handler of a path."""

    async def send_with_allow(message: Message) -> None:
        if message["type"] == "http.response.start" and methods:
            allow = ", ".join(sorted(methods)).encode()
            headers = message["headers"]
            message["headers"] = [(name, allow if name == b"allow" else value) for name, value in headers]
        await send(message)

    return send_with_allow


async def _send_preflight_response(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _send_head_only(send: Send) -> Send:
    """Return ``send`` for a response that ends with its headers, whatever the handler sends after them."""
    started = False

    async def send_head(message: Message) -> None:
        nonlocal started
        if started:
            return
        started = message["type"] == "http.response.start"
        await send(message)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_head
