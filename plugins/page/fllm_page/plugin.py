"""Register the routes. Only a server imports Litestar, which takes half a second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fllm import hookimpl


@hookimpl
def fllm_routes() -> Iterable[Any]:
    """Yield the handlers."""
    from fllm_page.chat import chat
    from fllm_page.routes import page

    yield from (page, chat)
