"""The routes of plugins, beside ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from litestar import Litestar, Router

from fllm.errors import PluginError
from fllm.plugins.loader import Plugins


def with_routes_of(plugins: Plugins, build: Callable[[Sequence[Any]], Litestar]) -> Litestar:
    """Our application, and the routes of each plugin that can stand beside it; the others are left out.

    What Litestar refuses shows only when it builds an application, so every plugin's routes are tried out.
    """
    app = build(())
    ours = {route.path for route in app.routes}
    mounted: list[Any] = []

    def check(answer: Iterable[Any]) -> list[Any]:
        handlers = list(answer)
        for route in Router("/", route_handlers=handlers).routes:
            if route.path in ours:
                raise PluginError(f"{route.path} is a path of ours")
        build([*mounted, *handlers])
        return handlers

    for handlers in plugins.routes(check):
        mounted += handlers
    return build(mounted) if mounted else app
