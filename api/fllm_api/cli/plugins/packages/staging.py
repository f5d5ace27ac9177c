"""Distributions in a scratch directory, before they are installed into the environment."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath

from msgspec import Struct

from fllm.plugins.discovery import normalize_name
from fllm_api.cli.plugin_lock.distribution_files import plugin_names
from fllm_api.cli.plugins.packages.environment import Environment, normal_path


class StagedDistribution(Struct, frozen=True):
    """A distribution that is to be installed."""

    name: str
    version: str
    size: int
    """Bytes of its files."""
    plugins: tuple[str, ...]
    """Names of its plugins."""
    paths: tuple[Path, ...]
    """Where its files may be in the environment. Not every installer uses all of them."""

    @property
    def key(self) -> str:
        """Normalized name."""
        return normalize_name(self.name)


def read_stage(directory: Path, environment: Environment) -> list[StagedDistribution]:
    """Return the distributions that were installed into a directory, sorted by name.

    Raise `PluginError` if the entry points of one can't be read.
    """
    found = metadata.distributions(path=[str(directory)])
    return sorted((_staged(each, directory, environment) for each in found), key=lambda each: each.key)


def _staged(distribution: Distribution, directory: Path, environment: Environment) -> StagedDistribution:
    files = distribution.files or []
    sizes = [_size(directory / _below(file)) for file in files]
    return StagedDistribution(
        name=distribution.metadata["Name"],
        version=distribution.version,
        size=sum(sizes),
        plugins=tuple(plugin_names(distribution)),
        paths=tuple(dict.fromkeys(path for file in files for path in _targets(file, environment))),
    )


def _below(file: PurePosixPath) -> PurePosixPath:
    """Return a recorded path without the steps that lead out of site-packages."""
    return PurePosixPath(*(part for part in file.parts if part not in ("..", "/")))


def _targets(file: PurePosixPath, environment: Environment) -> Iterator[Path]:
    """Yield the paths of a file in an environment. uv records scripts and data as if they were modules."""
    relative = _below(file)
    sites = () if ".." in file.parts else environment.sites
    for base in (*sites, environment.prefix):
        yield normal_path(base / relative)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
