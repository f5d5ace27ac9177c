"""Response of `/version`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class BuildInfo(Struct, frozen=True):
    """Version and commit of the installed furiosa-llm."""

    version: str
    git_hash: str
    stage: str
    """``release`` or ``dev``."""


class PluginVersion(Struct, frozen=True, kw_only=True):
    """Name, version and load error of one plugin."""

    name: str
    version: str
    distribution: str
    error: str | None = None
    """Reason why the plugin, or one of its hooks, is not in use."""


class VersionInfo(Struct, frozen=True, kw_only=True, rename={"build": "furiosa-llm"}):
    """Versions of the server, the backend and the plugins."""

    version: str
    build: BuildInfo
    backend: dict[str, Any]
    plugins: list[PluginVersion]
