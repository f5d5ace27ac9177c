"""What ``plugins check`` is asked to check: installed plugins by a name, or what lies at a path."""

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
from fllm.plugins.discovery import GROUP, Candidate, from_file, installed, normal
from fllm.plugins.loader import Plugins
from fllm_api.cli.plugins.description import describe


class Target(Struct, frozen=True):
    """A plugin to check."""

    candidate: Candidate
    entry: str | None = None
    """This of its entries only; ``None``: all that it has."""


def targets(asked: str, plugins: Plugins) -> list[Target]:
    """What that name or path means; raises `UserError`.

    A name is that of a plugin, of a distribution, or of an entry. What has a separator, or ends with ``.py``,
    is a path; the name of a directory that nothing else bears is one, too.
    """
    path = Path(asked)
    if os.sep in asked or path.suffix == ".py" or (path.is_dir() and not _known(asked, plugins)):
        return [Target(each) for each in _at(path)]
    return list(_named(asked, plugins))


def _at(path: Path) -> list[Candidate]:
    if not path.exists():
        raise ConfigError(f"there is no {str(path)!r}")
    return _of_project(path) if path.is_dir() else [from_file(str(path))]


def _named(name: str, plugins: Plugins) -> Iterator[Target]:
    candidates = {(each.distribution, each.name): each for each in installed()}
    for found in describe(plugins, name):
        candidate = candidates.get((found.plugin.distribution, found.plugin.name))
        if candidate is None:
            raise ConfigError(
                f"{name!r} is of a file: check {found.plugin.source!r} itself, without --plugin"
            )
        yield Target(candidate, None if normal(name) in candidate.names else name)


def _known(name: str, plugins: Plugins) -> bool:
    entries = (each.entry.name for registry in plugins.registries() for each in registry)
    return name in entries or any(normal(name) in each.names for each in installed())


def _of_project(directory: Path) -> list[Candidate]:
    """The plugins that a project offers, imported from where their source lies."""
    project = _project(directory / "pyproject.toml")
    points = project.get("entry-points", {}).get(GROUP, {})
    if not points:
        raise ConfigError(
            f"{str(directory)!r} offers no plugin: its pyproject.toml has no [project.entry-points.{GROUP}]"
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


def _project(file: Path) -> dict[str, Any]:
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    except FileNotFoundError:
        raise ConfigError(f"{str(file.parent)!r} is no project: it has no pyproject.toml") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{str(file)!r} can't be read: {error}") from error
    return project if isinstance(project, dict) else {}
