"""Which files a directory of KV blocks has, in order of their last use, and how large they are together."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fllm.batching.kv_offload.block_files import TEMPORARY_SUFFIX

STALE_SECONDS = 3600.0
"""Age of a temporary file that only a process which has crashed can have left."""
_TICK_NS = 2_000_000_000
"""A folder that had changed this recently when it was read is read again: its time may be coarse."""
_MODEL, _FOLDER, _FILE = (re.compile(f"[0-9a-f]{{{digits}}}") for digits in (32, 2, 62))
"""Names of what `BlockFiles` writes. Nothing else is counted or removed."""


class _File(NamedTuple):
    size: int
    used_ns: int
    """Time of the last use, as its modification time says."""


class _Folder(NamedTuple):
    """What a folder was when it was read."""

    changed_ns: int
    read_ns: int
    files: frozenset[str]


class DiskIndex:
    """The files below a directory ``root``, of all models and of all engines that share it.

    It is built from the names and sizes of the files, not from their contents. Any thread may call it.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self.limit = limit
        self.used = 0
        """Bytes of all files."""
        self._root = root
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()
        """By path relative to the root, least recently used first."""
        self._folders: dict[str, _Folder] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __len__(self) -> int:
        return len(self._files)

    def scan(self) -> None:
        """Read the folders that have changed since the last call. Raise `OSError`.

        So the files that other engines have written or removed become known.
        """
        found: list[tuple[str, _File]] = []
        seen: set[str] = set()
        for model in _subfolders(self._root, _MODEL):
            _remove_stale(self._root / model)
            for folder in _subfolders(self._root / model, _FOLDER):
                seen.add(f"{model}/{folder}")
                found += self._read_folder(f"{model}/{folder}")
        for folder in self._folders.keys() - seen:
            for name in self._folders.pop(folder).files:
                self.discard(name)
        with self._lock:
            for name, file in sorted(found, key=lambda item: item[1].used_ns):
                self._put(name, file)

    def add(self, name: str, size: int) -> None:
        """Add a file that was just written, or count a use of it."""
        with self._lock:
            self._put(name, _File(size, time.time_ns()))

    def discard(self, name: str) -> None:
        """Remove a file from the index, if it is known."""
        with self._lock:
            if (file := self._files.pop(name, None)) is not None:
                self.used -= file.size

    def make_room(self, size: int) -> bool:
        """Remove the files that were used least recently until ``size`` more bytes fit. Raise `OSError`.

        Return whether they fit. A file that another engine has used in the meantime stays. Nothing is removed
        for what can never fit.
        """
        if size > self.limit:
            return False
        while self.used + size > self.limit:
            try:
                with self._lock:
                    name, file = next(iter(self._files.items()))
            except StopIteration:
                return False
            path = self._root / name
            with suppress(FileNotFoundError):
                used_ns = path.lstat().st_mtime_ns
                if used_ns > file.used_ns:
                    with self._lock:
                        self._put(name, _File(file.size, used_ns))
                    continue
                path.unlink()
            self.discard(name)
        return True

    def _put(self, name: str, file: _File) -> None:
        before = self._files.pop(name, None)
        self.used += file.size - (before.size if before else 0)
        self._files[name] = file

    def _read_folder(self, folder: str) -> list[tuple[str, _File]]:
        """Return the new files of a folder, if it has changed; forget those that are not there any more."""
        with suppress(FileNotFoundError):
            changed_ns = (self._root / folder).stat().st_mtime_ns
            before = self._folders.get(folder, _Folder(0, 0, frozenset()))
            if changed_ns == before.changed_ns and before.read_ns - changed_ns > _TICK_NS:
                return []
            read_ns, names, new = time.time_ns(), set[str](), list[tuple[str, _File]]()
            with os.scandir(self._root / folder) as entries:
                for entry in entries:
                    if _FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        names.add(name := f"{folder}/{entry.name}")
                        if name not in self._files:
                            new.append((name, _describe(entry)))
            self._folders[folder] = _Folder(changed_ns, read_ns, frozenset(names))
            for name in before.files - names:
                self.discard(name)
            return new
        return []


def _describe(entry: os.DirEntry[str]) -> _File:
    status = entry.stat(follow_symlinks=False)
    return _File(status.st_size, status.st_mtime_ns)


def _subfolders(directory: Path, pattern: re.Pattern[str]) -> list[str]:
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        return [e.name for e in entries if pattern.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    return []


def _remove_stale(directory: Path) -> None:
    """Remove the temporary files of processes that have crashed."""
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            ours = entry.name.endswith(TEMPORARY_SUFFIX) and entry.is_file(follow_symlinks=False)
            if ours and time.time() - _describe(entry).used_ns / 1e9 > STALE_SECONDS:
                os.unlink(entry.path)
