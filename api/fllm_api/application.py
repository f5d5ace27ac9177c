"""The Litestar application with what precedes its routing: HEAD, a path prefix, the log of unknown paths."""

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
from fllm_api.middleware.request_tracking import report_unrouted
from fllm_api.request_context import context_of


class Application(Litestar):
    """Handles HEAD like GET on every route, plugins' included, and reports requests for unknown paths."""

    def __init__(self, *, root_path: str, collectors: Sequence[Collector], **settings: Any) -> None:
        super().__init__(**settings)
        self._root_path = root_path
        self._collectors = collectors

    async def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> None:
        """Handle one request, or the events of startup and shutdown."""
        if scope["type"] != ScopeType.HTTP:
            await super().__call__(scope, receive, send)
            return
        scope = cast(HTTPScope, scope)
        scope.setdefault("state", {})
        context = context_of(scope)
        scope["path"] = _without_prefix(scope["path"], self._root_path)
        if scope["method"] == HttpMethod.HEAD and self._is_only_get(scope["path"]):
            # A copy: the listener reads the method of the original.
            scope = cast(HTTPScope, {**scope, "method": "GET"})
            send = _send_head_only(cast(Send, send))
        await super().__call__(scope, receive, send)
        is_routed = "route_handler" in cast(dict[str, Any], scope)
        if not is_routed and (context.status or 0) >= 400:
            report_unrouted(scope, self._collectors)

    def _is_only_get(self, path: str) -> bool:
        """Return whether a path is routed for GET, and not for HEAD."""
        try:
            self.asgi_router.handle_routing(path=normalize_path(path), method="HEAD")
        except MethodNotAllowedException as error:
            return "GET" in (error.headers or {})["allow"]
        except NotFoundException:
            pass
        return False


def _without_prefix(path: str, prefix: str) -> str:
    """Return a path without the prefix, which a proxy may or may not have removed."""
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        return path[len(prefix) :] or "/"
    return path


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
