"""The Python environment of the server: where its distributions are, and which ones the server needs."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from importlib.metadata import Distribution
from pathlib import Path
from sysconfig import get_path

from msgspec import Struct

from fllm.errors import PluginError
from fllm.plugins.discovery import SERVER, normalize_name
from fllm_api.cli.plugin_lock.distribution_files import plugin_names

PIPX_METADATA = "pipx_metadata.json"
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][\w.-]*)")
_EXTRA = re.compile(r";.*\bextra\s*==")


class Environment(Struct, frozen=True):
    """An environment, such as a virtual one."""

    prefix: Path
    sites: tuple[Path, ...]
    """Its directories ``site-packages``: for pure Python, and for extension modules if that is another."""

    @classmethod
    def current(cls) -> Environment:
        """Return the environment of this interpreter."""
        sites = (Path(get_path(name)).resolve() for name in ("purelib", "platlib"))
        return cls(Path(sys.prefix).resolve(), tuple(dict.fromkeys(sites)))

    @property
    def pipx_metadata(self) -> Path:
        """The file that pipx keeps in an environment."""
        return self.prefix / PIPX_METADATA

    @property
    def was_made_by_uv(self) -> bool:
        """Whether uv created the virtual environment."""
        with suppress(OSError):
            return "\nuv = " in (self.prefix / "pyvenv.cfg").read_text()
        return False

    def distributions(self) -> dict[str, Distribution]:
        """Return the distributions in the environment itself, by normalized name."""
        importlib.invalidate_caches()
        found = metadata.distributions(path=[str(site) for site in self.sites])
        return {normalize_name(name): each for each in found if (name := each.metadata["Name"])}

    def contains(self, path: Path) -> bool:
        """Return whether a path is inside the environment."""
        return path.is_relative_to(self.prefix) or any(path.is_relative_to(site) for site in self.sites)

    def files(self, distribution: Distribution) -> Iterator[Path]:
        """Yield the recorded files of a distribution in the environment, and others with its metadata.

        Raise `PluginError` if they are unknown.
        """
        if distribution.files is None:
            name = f"{distribution.metadata['Name']} {distribution.version}"
            raise PluginError(
                f"{name} was not installed by pip or uv (it has no RECORD); so it stays as it is"
            )
        folders: set[Path] = set()
        for file in distribution.files:
            path = normal_path(Path(str(distribution.locate_file(file))))
            if self.contains(path):
                yield path
            if file.parts[0].endswith(".dist-info"):
                folders.add(path.parent)
        for folder in folders:
            yield from (path for path in folder.iterdir() if path.is_file())


def normal_path(path: Path) -> Path:
    """Return an absolute path without ``..``, whose directories have no links."""
    return path.parent.resolve() / path.name


def server_needs() -> dict[str, str]:
    """Return the installed versions of the server and of all that it depends on, by name."""
    versions: dict[str, str] = {}
    pending = [SERVER]
    while pending:
        name = pending.pop()
        if name in versions:
            continue
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        versions[name] = found.version
        for requirement in found.requires or ():
            is_extra = _EXTRA.search(requirement)
            if (match := _REQUIREMENT.match(requirement)) and (name == SERVER or not is_extra):
                pending.append(normalize_name(match[1]))
    return versions


def third_party_distributions() -> dict[str, Distribution]:
    """Return the distributions with plugins except the server itself, by normalized name."""
    found: dict[str, Distribution] = {}
    for each in metadata.distributions():
        if "[fllm]" in (each.read_text("entry_points.txt") or "") and (name := each.metadata["Name"]):
            found.setdefault(normalize_name(name), each)
    found.pop(SERVER, None)
    return found


def distribution_of_plugin(name: str) -> Distribution | None:
    """Return the installed third-party distribution with this name, or with a plugin of this name.

    Raise `PluginError` if several have such a plugin.
    """
    installed = third_party_distributions()
    if (key := normalize_name(name)) in installed:
        return installed[key]
    matches = [
        each
        for each in installed.values()
        if key in {normalize_name(plugin) for plugin in plugin_names(each)}
    ]
    if len(matches) > 1:
        names = ", ".join(sorted(each.metadata["Name"] for each in matches))
        raise PluginError(f"several distributions have a plugin {name!r}: {names}; name the distribution")
    return matches[0] if matches else None
