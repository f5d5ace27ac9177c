"""The journal of a change: what was in the environment before, so that it can be undone exactly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from fllm.errors import PluginError
from fllm_api.cli.plugins.packages.environment import Environment, normal_path

JOURNAL = "journal.json"
COPIES = "copies"
_RESIDUE = "~"
"""First character of what pip leaves when it is killed while it replaces a distribution."""


class SavedFile(Struct, frozen=True):
    """A file that the change may replace or remove, and its copy."""

    path: str
    copy: str


class Record(Struct, frozen=True, kw_only=True):
    """What was there before a change."""

    action: str
    """The change in words, for messages."""
    versions: dict[str, str]
    """Version of each distribution of the environment."""
    saved: list[SavedFile]
    added: list[str]
    """Paths of files that did not exist, and that the change may create."""
    directories: list[str]
    """The directories of these that did not exist, inner ones first."""
    residues: list[str]
    """What earlier changes of pip have left."""


class Journal:
    """The journal of one environment. There is one change at a time: see `ChangeLock`."""

    def __init__(self, directory: Path, environment: Environment) -> None:
        self._directory = directory
        self._environment = environment
        self._file = directory / JOURNAL
        self._copies = directory / COPIES

    @property
    def is_open(self) -> bool:
        """Whether a change has begun and has been neither accepted nor undone."""
        return self._file.is_file()

    def begin(self, action: str, old: Iterable[Path], new: Iterable[Path]) -> None:
        """Copy the files that may change, and write the journal. Raise `OSError`.

        ``old`` are the files of distributions that will be replaced or removed, ``new`` those that will be
        installed.
        """
        shutil.rmtree(self._copies, ignore_errors=True)
        self._copies.mkdir(mode=0o700)
        added = dict.fromkeys([*new])
        paths = dict.fromkeys(path for each in (*old, *added) for path in (each, *_compiled(each)))
        saved = []
        for number, path in enumerate(path for path in paths if path.is_symlink() or path.is_file()):
            shutil.copy2(path, self._copies / str(number), follow_symlinks=False)
            saved.append(SavedFile(str(path), str(number)))
        record = Record(
            action=action,
            versions=self._versions(),
            saved=saved,
            added=[str(path) for path in added if not os.path.lexists(path)],
            directories=list(map(str, _missing_directories(added))),
            residues=list(map(str, self._residues())),
        )
        temporary = self._file.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(record))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._file)

    def accept(self) -> None:
        """Keep the change."""
        self._file.unlink(missing_ok=True)
        shutil.rmtree(self._copies, ignore_errors=True)

    def undo(self) -> str:
        """Restore what was there before, and return in words what was undone. It may be repeated.

        Raise `PluginError` if a file can't be restored; the journal stays.
        """
        try:
            record = msgspec.json.decode(self._file.read_bytes(), type=Record)
            self._remove_added(record)
            for each in record.saved:
                _restore(self._copies / each.copy, Path(each.path))
            for folder in record.directories:
                with suppress(OSError):  # it has files of others
                    Path(folder).rmdir()
        except (OSError, ValueError) as error:
            raise PluginError(f"the environment can't be restored ({self._file}): {error}") from error
        self.accept()
        changed = {name for name, _ in self._versions().items() ^ record.versions.items()}
        others = f" (others have changed since: {', '.join(sorted(changed))})" if changed else ""
        return record.action + others

    def _remove_added(self, record: Record) -> None:
        saved = {each.path for each in record.saved}
        paths = [Path(each) for each in (*record.added, *saved)]
        for path in (*map(Path, record.added), *(file for each in paths for file in _compiled(each))):
            if str(path) not in saved:
                path.unlink(missing_ok=True)
        for path in map(Path, record.added):
            with suppress(OSError):
                path.with_name("__pycache__").rmdir()
        for folder in map(Path, record.directories):
            if folder.name.endswith(".dist-info"):  # its installer has added files
                shutil.rmtree(folder, ignore_errors=True)
        for path in self._residues():
            if str(path) not in record.residues:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _residues(self) -> Iterator[Path]:
        for site in self._environment.sites:
            with suppress(FileNotFoundError):
                yield from site.glob(f"{_RESIDUE}*")

    def _versions(self) -> dict[str, str]:
        return {name: each.version for name, each in self._environment.distributions().items()}


def _compiled(path: Path) -> list[Path]:
    """Return the files with the compiled code of a module, also half written ones (``.pyc.123``)."""
    if path.suffix != ".py":
        return []
    with suppress(OSError):
        return list(path.with_name("__pycache__").glob(f"{_escape(path.stem)}.*.pyc*"))
    return []


def _escape(name: str) -> str:
    return "".join(f"[{each}]" if each in "*?[" else each for each in name)


def _missing_directories(paths: Iterable[Path]) -> list[Path]:
    """Return the directories of these paths that do not exist, inner ones first."""
    missing: set[Path] = set()
    for path in paths:
        for folder in path.parents:
            if folder in missing or folder.exists():
                break
            missing.add(folder)
    return sorted(missing, key=lambda folder: len(folder.parts), reverse=True)


def _restore(copy: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = normal_path(path).with_name(f".{path.name}.restored")
    temporary.unlink(missing_ok=True)
    shutil.copy2(copy, temporary, follow_symlinks=False)
    temporary.replace(path)
