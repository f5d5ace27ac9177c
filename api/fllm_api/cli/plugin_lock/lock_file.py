"""The file of ``furiosa-llm plugins lock``: third-party plugins with their versions and digests."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import msgspec
from msgspec import Struct

from fllm.config import PluginConfig
from fllm.errors import ConfigError
from fllm.files import read_bounded
from fllm.plugins.discovery import Candidate, candidates
from fllm.plugins.selection import PluginSelection
from fllm_api.cli.plugin_lock.distribution_files import digests, file_digest, is_editable

VERSION = 1
MAX_BYTES = 64 << 20


class LockedDistribution(Struct, frozen=True):
    """A distribution with plugins."""

    name: str
    version: str
    plugins: list[str]
    """Names of its plugins."""
    editable: bool
    """Whether it is imported from its project directory."""
    files: dict[str, str]
    """Digest of each file, by its path."""


class LockedFile(Struct, frozen=True):
    """A file of ``--plugin``."""

    name: str
    digest: str


class LockFile(Struct, frozen=True):
    """All third-party plugins of a server."""

    version: int
    distributions: list[LockedDistribution] = []
    files: list[LockedFile] = []


def third_party(config: PluginConfig) -> list[Candidate]:
    """Return the third-party plugins that are loaded with a configuration. None is imported."""
    selection = PluginSelection(config)
    return [
        each
        for each in candidates(config)
        if not each.is_built_in and selection.allows(each) and not selection.disables(each)
    ]


def create_lock(plugins: Iterable[Candidate]) -> LockFile:
    """Return the lock of these plugins. Raise `PluginError` if a file can't be read, or was changed."""
    names: dict[str, list[str]] = {}
    files: list[LockedFile] = []
    for each in plugins:
        if each.is_file:
            files.append(LockedFile(each.name, file_digest(Path(each.source))))
        else:
            names.setdefault(each.distribution, []).append(each.name)
    return LockFile(VERSION, [lock_distribution(name, names[name]) for name in names], files)


def lock_distribution(name: str, plugins: list[str]) -> LockedDistribution:
    """Return the lock of one installed distribution. Raise `PluginError` if its files can't be locked."""
    found = distribution(name)
    return LockedDistribution(name, found.version, plugins, is_editable(found), digests(found))


def read_lock(file: Path, option: str) -> LockFile:
    """Return the content of a lock. Raise `ConfigError` if it is not one."""
    where = f"{option} {str(file)!r}"
    try:
        lock = msgspec.json.decode(read_bounded(file, MAX_BYTES), type=LockFile)
    except OSError as error:
        raise ConfigError(f"{where} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} was not written by `furiosa-llm plugins lock`: {error}") from error
    if lock.version != VERSION:
        raise ConfigError(f"{where} has the format {lock.version}; this server reads {VERSION}")
    return lock
