"""Mount the routes of plugins alongside the server's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, get_type_hints

from litestar import Litestar, Router
from litestar.handlers import HTTPRouteHandler
from msgspec.structs import replace

from fllm.errors import PluginError
from fllm.interfaces import Collector
from fllm.plugins.loader import PluginReport, Plugins
from fllm.serving import RoutesContext
from fllm_api.middleware.request_tracking import PLUGIN
from fllm_api.openapi.responses import errors
from fllm_api.protocol.errors import ErrorResponse

_ENVELOPED = ("uses_engine", "limited", "error_body")

Lifespan = Callable[[], AbstractAsyncContextManager[None]]


def with_plugin_routes(
    plugins: Plugins,
    build: Callable[[Sequence[Any], Sequence[Lifespan]], Litestar],
    context: RoutesContext,
    add_collector: Callable[[Collector, PluginReport], None],
) -> Litestar:
    """Return the application with the routes of every plugin that Litestar accepts; leave out the others.

    ``context`` is what all plugins receive; ``add_collector`` takes the collectors of accepted ones.
    Litestar reports an invalid route only when it builds an application, so this builds one per plugin.
    Raise `ConfigError` if a plugin can't work as its options demand.
    """
    app = build((), ())
    reserved = {_shape(route.path) for route in app.routes}
    mounted: list[Any] = []
    lifespans: list[Lifespan] = []
    added: list[Lifespan] = []
    """Of the plugin whose routes are checked."""
    collectors: list[Collector] = []
    """Those of the same plugin."""
    context = replace(context, lifespan=added.append, collect=collectors.append)

    plugin = ""

    def check(routes: Iterable[Any]) -> list[Any]:
        handlers = list(routes)
        for handler in handlers:
            _document_errors(handler)
        for route in Router("/", route_handlers=handlers).routes:
            if _shape(route.path) in reserved:
                raise PluginError(f"the server itself uses the path {route.path}; choose another path")
        build([*mounted, *handlers], ())
        return handlers

    def keep(report: PluginReport, is_accepted: bool) -> None:
        nonlocal plugin
        plugin = report.name
        if is_accepted:
            lifespans.extend(added)
            for collector in collectors:
                add_collector(collector, report)
        added.clear()
        collectors.clear()

    for handlers in plugins.routes(check, context, keep):
        for handler in handlers:
            handler.opt = {**(getattr(handler, "opt", None) or {}), PLUGIN: plugin}
        mounted += handlers  # the check of the next plugin sees them
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
