"""Servers with plugins of dialects, in the process of the test."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from support.api_fakes import a_server

from fllm.plugins.discovery import Candidate
from fllm.plugins.loader import Plugins
from fllm_api.app_state import AppState


def dialect_plugins(*names: str) -> Plugins:
    """Return built-in plugins with routes: ``pooling``, or dialects."""
    plugins = Plugins()
    for name in names:
        package = "fllm_pooling" if name == "pooling" else f"fllm_dialects.{name}"
        module: ModuleType = importlib.import_module(f"{package}.plugin")
        plugins.load(Candidate(name, "furiosa-llm-server", "1", "m", lambda module=module: module))
    return plugins


def a_dialect_server(*names: str, **parts: Any) -> AppState:
    """Return a server with these plugins; ``parts`` are those of `a_server`."""
    return a_server(plugins=dialect_plugins(*names), **parts)
