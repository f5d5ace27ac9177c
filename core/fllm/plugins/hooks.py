"""The hooks. A plugin implements any of them, marked with `fllm.hookimpl`; all fire at start-up.

Three shapes: **named** hooks yield `Entry` values, of which the user picks one by name and only that one is
imported; **asked in turn**, the first answer wins; **told**, everybody's answer is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pluggy

from fllm.interfaces import Collector, MetricsContext, TemplateContext
from fllm.plugins.registry import BackendEntry, Entry
from fllm.values import ChatTemplates

hookspec = pluggy.HookspecMarker("fllm")
hookimpl = pluggy.HookimplMarker("fllm")
"""Marks a function of a plugin as the implementation of the hook of the same name."""

API_VERSION = 1
"""Version of the plugin interface. A plugin that needs a newer one says so: ``FLLM_API_VERSION = 2``."""


@hookspec
def fllm_backends() -> Iterable[BackendEntry]:  # type: ignore[empty-body]
    """Named: engines, and the kinds of devices that each serves. The target is a `BackendFactory`."""


@hookspec
def fllm_tool_parsers() -> Iterable[Entry]:  # type: ignore[empty-body]
    """Named: parsers of tool calls. The target is a `ParserFactory`."""


@hookspec
def fllm_reasoning_parsers() -> Iterable[Entry]:  # type: ignore[empty-body]
    """Named: parsers of reasoning. The target is a `ParserFactory`."""


@hookspec
def fllm_grammars() -> Iterable[Entry]:  # type: ignore[empty-body]
    """Named: what keeps answers to a constraint. The target is a `GrammarFactory`."""


@hookspec
def fllm_commands() -> Iterable[Entry]:  # type: ignore[empty-body]
    """Named: sub-commands of ``furiosa-llm``. The target is a click command."""


@hookspec(firstresult=True)
def fllm_chat_template(context: TemplateContext) -> ChatTemplates | None:
    """Asked in turn, after the backend has started: the model's chat templates, or ``None`` to pass."""


@hookspec
def fllm_collectors(context: MetricsContext) -> Iterable[Collector]:  # type: ignore[empty-body]
    """Told, after the backend has started: collectors of metrics; all of them are called."""


@hookspec
def fllm_routes() -> Iterable[Any]:  # type: ignore[empty-body]
    """Told, while the application is built: Litestar route handlers to mount beside ours."""
