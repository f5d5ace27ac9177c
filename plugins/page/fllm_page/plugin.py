"""Register the routes. Only a server imports Litestar, which takes half a second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fllm import hookimpl

if TYPE_CHECKING:
    from fllm import RoutesContext


@hookimpl
def fllm_routes(context: RoutesContext) -> Iterable[Any]:
    """Yield the handlers. A collector of the same server keeps what `/page/machine` shows."""
    from fllm_page.chat import chat
    from fllm_page.description import description_routes
    from fllm_page.machine import machine_route
    from fllm_page.request_log import RequestLog
    from fllm_page.routes import page
    from fllm_page.samples import samples

    log = RequestLog()
    context.collect(log)
    yield from (page, chat, samples, *description_routes(context.describe))
    yield machine_route(log, context.describe)
