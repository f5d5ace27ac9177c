"""What ``plugins install`` is to install: names of plugins or distributions, paths, URLs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from fllm.errors import ConfigError, PluginError
from fllm.plugins.discovery import SERVER, normalize_name
from fllm.plugins.hooks import API_VERSION
from fllm_api.cli.plugins.packages.index import Listed, find_distribution, find_in_indexes

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)(?P<rest>\s*(?:\[.*\]\s*)?(?:[=<>!~].*)?)")
_ARCHIVES = (".whl", ".tar.gz", ".zip")


class InstallTarget(Struct, frozen=True):
    """One argument, as an installer takes it."""

    specification: str
    """A requirement, an absolute path or a URL."""
    name: str | None = None
    """Normalized name of the distribution; ``None`` for a path or URL, whose name is not known yet."""
    listed: Listed | None = None
    """The plugin in an index, if the argument is its name or that of its distribution."""


def resolve_target(text: str, listed: Sequence[Listed]) -> InstallTarget:
    """Return what an argument refers to: a URL, a path, a plugin of an index, or else a distribution.

    Raise `ConfigError` or `PluginError` if it can't be installed.
    """
    if "://" in text and not text.startswith("-"):
        return InstallTarget(text)
    if _is_path(text):
        return InstallTarget(_checked_path(text))
    match = _REQUIREMENT.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is neither a name, such as acme or acme==1.0, nor a path or URL")
    found = find_in_indexes(match["name"], listed)
    distribution = match["name"] if found is None else found.plugin.distribution
    if normalize_name(distribution) == SERVER:
        raise PluginError(f"{text!r} is built in: it is a part of {SERVER}")
    if found is None:
        named = find_distribution(distribution, listed)
        return InstallTarget(text.strip(), normalize_name(distribution), named)
    needed = found.plugin.requires.FLLM_API_VERSION
    if needed > API_VERSION:
        raise PluginError(
            f"{found.plugin.name} needs version {needed} of the plugin API, and this server has "
            f"{API_VERSION}: upgrade {SERVER} first"
        )
    if found.plugin.source is None or match["rest"]:
        return InstallTarget(distribution + match["rest"], normalize_name(distribution), found)
    return InstallTarget(found.specification, None, found)


def requirement_name(requirement: str) -> str:
    """Return the normalized name of a requirement ``name==version`` or ``name @ url``."""
    return normalize_name(requirement.partition("==")[0].partition(" @ ")[0])


def _is_path(text: str) -> bool:
    return bool(
        (os.sep in text and not text.startswith("-"))
        or text in (".", "..")
        or text.endswith((*_ARCHIVES, ".py"))
        or (text and Path(text, "pyproject.toml").is_file())
    )


def _checked_path(text: str) -> str:
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise ConfigError(f"{text!r} does not exist")
    if path.suffix == ".py":
        raise ConfigError(f"{text!r} is one file, which needs no installation: use --plugin {text}")
    if path.is_dir() and not (path / "pyproject.toml").is_file() and not (path / "setup.py").is_file():
        raise ConfigError(f"{text!r} is not a project: it has no pyproject.toml")
    return str(path)
