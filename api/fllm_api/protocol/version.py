"""`/version`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class BuildInfo(Struct, frozen=True):
    """Which build of furiosa-llm this is."""

    version: str
    git_hash: str
    stage: str
    """``release`` or ``dev``."""


class PluginVersion(Struct, frozen=True, kw_only=True):
    """A plugin that was found."""

    name: str
    version: str
    distribution: str
    error: str | None = None
    """Why it is left out, or which of its hooks is."""


class VersionInfo(Struct, frozen=True, kw_only=True, rename={"build": "furiosa-llm"}):
    """The versions of all parts."""

    version: str
    build: BuildInfo
    backend: dict[str, Any]
    plugins: list[PluginVersion]
