"""The hook specifications. A plugin implements some of them, marked with `fllm.hookimpl`.

All hooks are called at start-up. There are three shapes:

- Named: the hook yields `Entry` values. The user picks one by name, and only that one is imported.
- First result wins: plugins are called in turn until one returns a result.
- All are called: every result is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from fllm.interfaces import Collector, MetricsContext, TemplateContext
from fllm.plugins.registry import BackendEntry, DrafterEntry, Entry, PlacementEntry
from fllm.server_description import PagePanel
from fllm.values import ChatTemplates

if TYPE_CHECKING:
    from fllm.serving import RoutesContext

hookspec = pluggy.HookspecMarker("fllm")
hookimpl = pluggy.HookimplMarker("fllm")
"""Marks a function of a plugin as the implementation of the hook of the same name."""

API_VERSION = 1
"""Version of the plugin API. A plugin that needs a newer one declares it: ``FLLM_API_VERSION = 2``."""


@hookspec
def fllm_backends() -> Iterable[BackendEntry]:  # type: ignore[empty-body]
    """Yield backends and the kinds of devices that each serves. The targets are of type `BackendFactory`."""


@hookspec
def fllm_placements() -> Iterable[PlacementEntry]:  # type: ignore[empty-body]
    """Yield placements, which start the processes of engines. The targets are of type `PlacementFactory`."""


@hookspec
def fllm_tool_parsers() -> Iterable[Entry]:  # type: ignore[empty-body]
    """Yield tool-call parsers. The targets are of type `ParserFactory`."""


@hookspec
def fllm_reasoning_parsers() -> Iterable[Entry]:  # type: ignore[empty-body]
    """Yield reasoning parsers. The targets are of type `ParserFactory`."""


@hookspec
def fllm_grammars() -> Iterable[Entry]:  # type: ignore[empty-body]
    """Yield grammar backends for constrained decoding. The targets are of type `GrammarFactory`."""


@hookspec
def fllm_drafters() -> Iterable[DrafterEntry]:  # type: ignore[empty-body]
    """Yield drafters for speculative decoding. The targets are of type `DrafterFactory`."""


@hookspec
def fllm_commands() -> Iterable[Entry]:  # type: ignore[empty-body]
    """Yield sub-commands of ``furiosa-llm``. The targets are click commands."""


@hookspec(firstresult=True)
def fllm_chat_template(context: TemplateContext) -> ChatTemplates | None:
    """Return the model's chat templates, or ``None``. First result wins, after the backend has started."""


@hookspec
def fllm_collectors(context: MetricsContext) -> Iterable[Collector]:  # type: ignore[empty-body]
    """Yield metrics collectors. All are called, after the backend has started."""


@hookspec
def fllm_routes(context: RoutesContext) -> Iterable[Any]:  # type: ignore[empty-body]
    """Yield Litestar route handlers to mount. All are called, while the application is built."""


@hookspec
def fllm_page_panels() -> Iterable[PagePanel]:  # type: ignore[empty-body]
    """Yield panels of the page at `/`. All are called, while the application is built."""
