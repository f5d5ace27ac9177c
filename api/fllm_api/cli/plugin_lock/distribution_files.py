"""The files of an installed distribution, and their digests."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder, all_suffixes
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import msgspec

from fllm.errors import PluginError
from fllm.plugins.discovery import GROUP

SUFFIXES = (*all_suffixes(), ".pth")
"""Suffixes of files that the interpreter runs."""
_CACHE = "__pycache__"
_POINTS = "entry_points.txt"


class _DirInfo(msgspec.Struct, frozen=True):
    editable: bool = False


class DirectUrl(msgspec.Struct, frozen=True):
    """Contents of ``direct_url.json`` (PEP 610)."""

    url: str = ""
    dir_info: _DirInfo = _DirInfo()


def direct_url(distribution: Distribution) -> DirectUrl | None:
    """Return the path or URL that a distribution was installed from; ``None``: from an index."""
    try:
        text = distribution.read_text("direct_url.json")
        return None if text is None else msgspec.json.decode(text, type=DirectUrl)
    except (OSError, ValueError):
        return DirectUrl()


def is_editable(distribution: Distribution) -> bool:
    """Return whether the distribution is imported from its project directory."""
    url = direct_url(distribution)
    return url is not None and url.dir_info.editable


def plugin_names(distribution: Distribution) -> list[str]:
    """Return the names of the plugins of a distribution. Raise `PluginError` if they can't be read."""
    try:
        return sorted({point.name for point in distribution.entry_points if point.group == GROUP})
    except (TypeError, ValueError) as error:
        name = distribution.metadata["Name"]
        raise PluginError(f"{name}: its entry_points.txt is malformed: {error}") from error


def digests(distribution: Distribution) -> dict[str, str]:
    """Return the SHA-256 digest of each file, by its path in site-packages or in the project.

    Files of the installer are left out: they differ between environments. Files next to the recorded ones
    that could be imported are included. Raise `PluginError` if a file was changed after it was installed, or
    if a plugin would be imported from another place, such as one of ``PYTHONPATH``.
    """
    name = f"{distribution.metadata['Name']} {distribution.version}"
    found: dict[str, str] = {}
    folders: dict[str, Path] = {}
    if distribution.files is None:
        raise PluginError(f"{name}: its files are unknown, because its metadata has no RECORD")
    for file in distribution.files:
        if not _is_content(file):
            continue
        path = Path(str(file.locate()))
        found[file.as_posix()] = digest = _digest(path, f"{name}: {file}")
        if file.hash is not None and file.hash.mode == "sha256" and _from_record(file.hash.value) != digest:
            raise PluginError(f"{name}: {file} was changed after it was installed; install it again")
        if len(file.parts) > 1:
            folders[file.parent.as_posix()] = path.parent
    for folder, path in folders.items():
        for extra in _importable(path):
            if (key := f"{folder}/{extra.name}") not in found:
                found[key] = _digest(extra, f"{name}: {key}")
    if is_editable(distribution):
        for path, key in _sources(distribution):
            found[key] = _digest(path, f"{name}: {key}")
    elif (other := _imported_elsewhere(distribution, folders.values())) is not None:
        raise PluginError(f"{name}: its plugin would be imported from {other}, which is not part of it")
    return dict(sorted(found.items()))


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file. Raise `PluginError` if it can't be read."""
    return _digest(path, str(path))


def _is_content(file: PurePosixPath) -> bool:
    """Return whether a recorded file is the same in every environment."""
    if file.is_absolute() or ".." in file.parts or _CACHE in file.parts:
        return False  # scripts name the interpreter; compiled files are derived from the others
    return not file.parts[0].endswith(".dist-info") or file.name == _POINTS


def _importable(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    except OSError:
        return


def _sources(distribution: Distribution) -> Iterator[tuple[Path, str]]:
    """Yield the files of the packages that the plugins of an editable install are in."""
    points = (point for point in distribution.entry_points if point.group == GROUP)
    for top in sorted({point.module.partition(".")[0] for point in points}):
        spec = find_spec(top)
        if spec is None:
            continue
        for location in spec.submodule_search_locations or ():
            for path in _walk(Path(location)):
                yield path, f"{top}/{path.relative_to(location).as_posix()}"
        if spec.submodule_search_locations is None and spec.origin is not None:
            yield Path(spec.origin), Path(spec.origin).name


def _imported_elsewhere(distribution: Distribution, folders: Iterable[Path]) -> str | None:
    """Return the file of a plugin's module, if it is not in these folders of the distribution.

    No module is imported.
    """
    own = {Path(str(file.locate())).resolve() for file in distribution.files or ()}
    parents = {folder.resolve() for folder in folders}
    for point in distribution.entry_points:
        if point.group == GROUP and (origin := _origin(point.module)) is not None:
            file = Path(origin).resolve()
            if file not in own and file.parent not in parents:
                return origin
    return None


def _origin(module: str) -> str | None:
    """Return the file that a module would be imported from. The packages it is in are not imported."""
    top, *parts = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    for part in parts:
        if spec is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations or ())
    return spec.origin if spec is not None and spec.has_location else None


def _walk(folder: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if name != _CACHE)
        yield from (Path(directory, name) for name in sorted(files))


def _digest(path: Path, where: str) -> str:
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise PluginError(f"{where} can't be read: {error.strerror}") from error


def _from_record(value: str) -> str:
    """Return the digest of RECORD, which is in base64 without padding (PEP 376), as it is written here."""
    try:
        raw = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except ValueError:
        return ""
    return f"sha256:{raw.hex()}"
