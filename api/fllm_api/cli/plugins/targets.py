"""Find the plugins that ``plugins check`` is to check, by a name or a path."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from msgspec import Struct

from fllm.errors import ConfigError
from fllm.plugins.discovery import GROUP, Candidate, from_file, installed, normalize_name
from fllm.plugins.loader import Plugins
from fllm_api.cli.plugins.description import describe


class Target(Struct, frozen=True):
    """A plugin to check."""

    candidate: Candidate
    entry: str | None = None
    """Name of the only entry to check; ``None`` for all."""


def resolve_targets(path_or_name: str, plugins: Plugins) -> list[Target]:
    """Return the plugins that a name or path refers to. Raise `UserError` if there are none.

    A name is that of a plugin, a distribution or an entry. An argument with a path separator or the suffix
    ``.py`` is a path, and so is the name of a directory that is not also an installed name.
    """
    path = Path(path_or_name)
    if (
        os.sep in path_or_name
        or path.suffix == ".py"
        or (path.is_dir() and not _is_installed_name(path_or_name, plugins))
    ):
        return [Target(each) for each in _resolve_path(path)]
    return list(_resolve_name(path_or_name, plugins))


def _resolve_path(path: Path) -> list[Candidate]:
    if not path.exists():
        raise ConfigError(f"{str(path)!r} does not exist")
    return _project_plugins(path) if path.is_dir() else [from_file(str(path))]


def _resolve_name(name: str, plugins: Plugins) -> Iterator[Target]:
    candidates = {(each.distribution, each.name): each for each in installed()}
    for description in describe(plugins, name):
        candidate = candidates.get((description.plugin.distribution, description.plugin.name))
        if candidate is None:
            raise ConfigError(
                f"{name!r} is a plugin from a file: check {description.plugin.source!r}, without --plugin"
            )
        yield Target(candidate, None if normalize_name(name) in candidate.names else name)


def _is_installed_name(name: str, plugins: Plugins) -> bool:
    entries = (each.entry.name for registry in plugins.registries() for each in registry)
    return name in entries or any(normalize_name(name) in each.names for each in installed())


def _project_plugins(directory: Path) -> list[Candidate]:
    """Return the plugins of a project. They are imported from its source directory."""
    project = _read_project(directory / "pyproject.toml")
    points = project.get("entry-points", {}).get(GROUP, {})
    if not points:
        raise ConfigError(
            f"{str(directory)!r} has no plugins: add [project.entry-points.{GROUP}] to its pyproject.toml"
        )
    for place in (directory, directory / "src"):
        sys.path.insert(0, str(place.resolve()))
    return [
        Candidate(
            name,
            project.get("name", ""),
            str(project.get("version", "")),
            value,
            EntryPoint(name, value, GROUP).load,
        )
        for name, value in points.items()
    ]


def _read_project(file: Path) -> dict[str, Any]:
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    except FileNotFoundError:
        raise ConfigError(f"{str(file.parent)!r} is not a project: it has no pyproject.toml") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't read {str(file)!r}: {error}") from error
    return project if isinstance(project, dict) else {}
