"""Distributions in a scratch directory, before they are installed into the environment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from filecmp import cmp
from importlib import metadata
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath

from msgspec import Struct

from fllm.errors import PluginError
from fllm.plugins.discovery import normalize_name
from fllm_api.cli.plugin_lock.distribution_files import plugin_names
from fllm_api.cli.plugins.packages.environment import Environment, normal_path


class StagedFile(Struct, frozen=True):
    """A file of a distribution."""

    path: Path
    """Where it is now."""
    targets: tuple[Path, ...]
    """Where it may be in the environment. Not every installer uses all of them."""


class StagedDistribution(Struct, frozen=True):
    """A distribution that is to be installed."""

    name: str
    version: str
    size: int
    """Bytes of its files."""
    plugins: tuple[str, ...]
    """Names of its plugins."""
    files: tuple[StagedFile, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where its files may be in the environment."""
        return tuple(dict.fromkeys(target for file in self.files for target in file.targets))

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
    files = tuple(
        StagedFile(directory / _below(file), tuple(_targets(file, environment)))
        for file in distribution.files or []
    )
    return StagedDistribution(
        name=distribution.metadata["Name"],
        version=distribution.version,
        size=sum(_size(file.path) for file in files),
        plugins=tuple(plugin_names(distribution)),
        files=files,
    )


def refuse_overwriting(staged: Sequence[StagedDistribution], environment: Environment) -> None:
    """Raise `PluginError` if a file would replace another one of a distribution that stays."""
    replaced = {each.key for each in staged}
    stays = [each for key, each in environment.distributions().items() if key not in replaced]
    for new in staged:
        others = {
            target
            for file in new.files
            for target in file.targets
            if target.is_file() and not (file.path.is_file() and cmp(file.path, target, shallow=False))
        }
        for old in stays if others else ():
            if taken := sorted(others & _paths_named(old, {path.name for path in others})):
                raise PluginError(
                    f"{new.name} would overwrite {taken[0]}, which {old.metadata['Name']} {old.version} has"
                )


def _paths_named(distribution: Distribution, names: set[str]) -> set[Path]:
    found = [file for file in distribution.files or () if file.name in names]
    return {normal_path(Path(str(distribution.locate_file(file)))) for file in found}


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
