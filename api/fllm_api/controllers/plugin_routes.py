"""Mount the routes of plugins alongside the server's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from litestar import Litestar, Router
from litestar.handlers import HTTPRouteHandler

from fllm.errors import PluginError
from fllm.plugins.loader import Plugins
from fllm_api.openapi.responses import errors


def with_plugin_routes(plugins: Plugins, build: Callable[[Sequence[Any]], Litestar]) -> Litestar:
    """Return the application with the routes of every plugin that Litestar accepts; leave out the others.

    Litestar reports an invalid route only when it builds an application, so this builds one per plugin.
    """
    app = build(())
    reserved = {route.path for route in app.routes}
    mounted: list[Any] = []

    def check(routes: Iterable[Any]) -> list[Any]:
        handlers = list(routes)
        for handler in handlers:
            _document_errors(handler)
        for route in Router("/", route_handlers=handlers).routes:
            if route.path in reserved:
                raise PluginError(f"the server itself uses the path {route.path}; choose another path")
        build([*mounted, *handlers])
        return handlers

    for handlers in plugins.routes(check):
        mounted += handlers
    return build(mounted) if mounted else app


def _document_errors(handler: Any) -> None:
    """Add the error envelope to the description of a handler that uses the engine."""
    if isinstance(handler, HTTPRouteHandler) and handler.opt.get("uses_engine"):
        documented = errors(400, 401, 404, 413, 415, 429, 500, 503, 504)
        handler.responses = {**documented, **(handler.responses or {})}
