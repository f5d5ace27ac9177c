"""Mount the routes of plugins alongside the server's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, get_type_hints

from litestar import Litestar, Router
from litestar.handlers import HTTPRouteHandler

from fllm.errors import PluginError
from fllm.plugins.loader import Plugins
from fllm.serving import RoutesContext, RunningServer
from fllm_api.openapi.responses import errors
from fllm_api.protocol.errors import ErrorResponse

_ENVELOPED = ("uses_engine", "limited", "error_body")

Lifespan = Callable[[], AbstractAsyncContextManager[None]]


def with_plugin_routes(
    plugins: Plugins,
    build: Callable[[Sequence[Any], Sequence[Lifespan]], Litestar],
    server: RunningServer,
    data_dir: Callable[[], Path | None],
) -> Litestar:
    """Return the application with the routes of every plugin that Litestar accepts; leave out the others.

    Litestar reports an invalid route only when it builds an application, so this builds one per plugin.
    Raise `ConfigError` if a plugin can't work as its options demand.
    """
    app = build((), ())
    reserved = {_shape(route.path) for route in app.routes}
    mounted: list[Any] = []
    lifespans: list[Lifespan] = []
    added: list[Lifespan] = []
    """Of the plugin whose routes are checked."""
    context = RoutesContext(server=server, data_dir=data_dir, lifespan=added.append)

    def check(routes: Iterable[Any]) -> list[Any]:
        handlers = list(routes)
        for handler in handlers:
            _document_errors(handler)
        for route in Router("/", route_handlers=handlers).routes:
            if _shape(route.path) in reserved:
                raise PluginError(f"the server itself uses the path {route.path}; choose another path")
        build([*mounted, *handlers], ())
        return handlers

    def keep_lifespans(is_accepted: bool) -> None:
        if is_accepted:
            lifespans.extend(added)
        added.clear()

    for handlers in plugins.routes(check, context, keep_lifespans):
        mounted += handlers
    return build(mounted, lifespans) if mounted or lifespans else app


def _shape(path: str) -> str:
    """Return a path without the names and types of its parameters, which do not make it another path."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def _document_errors(handler: Any) -> None:
    """Add the error envelope to the description of a handler that has its own, or that limits hold for."""
    if isinstance(handler, HTTPRouteHandler) and not handler.opt.keys().isdisjoint(_ENVELOPED):
        make = handler.opt.get("error_body")
        kind = ErrorResponse if make is None else get_type_hints(make).get("return", ErrorResponse)
        documented = errors(400, 401, 404, 413, 415, 429, 500, 503, 504, body=kind)
        handler.responses = {**documented, **(handler.responses or {})}
