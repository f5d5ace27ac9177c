"""The contents of files: a directory for each client, and how much each keeps."""

from __future__ import annotations

import asyncio
import os
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from fllm_dialects.batches.errors import QuotaExceeded

WRITE_BYTES = 64 * 1024
"""Bytes that are collected before a thread writes them."""
READ_BYTES = 256 * 1024
FILE_BYTES = 4096
"""Counted for each file in addition to its content, so that their number is limited, too."""
PARTIAL = ".part"
"""Suffix of a file that is not complete."""
OWNER_PREFIX = "client-"


class Contents:
    """A directory with one file for each id. Ids are made by this server, so they are safe as names."""

    def __init__(self, directory: Path, *, max_client: int, max_total: int, create: bool = True) -> None:
        """Create the directory, which only the server's user may read, and count what is there.

        Without ``create``, it may be missing; then files can't be stored. Raise `OSError`.
        """
        if create:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._max_client, self._max_total = max_client, max_total
        self._kept = self.measure()
        """Bytes of each client's files, those that are written included."""

    def path(self, owner: str, file_id: str) -> Path:
        """Return where the content of a file is."""
        return self._directory_of(owner) / file_id

    def measure(self) -> Counter[str]:
        """Return what each client keeps, by the files that are there. Raise `OSError`."""
        kept: Counter[str] = Counter()
        for owner, path in self.all():
            kept[owner] += size_of(path)
        return kept

    async def recount(self) -> None:
        """Count what is there again: other servers may write to the directory. Raise `OSError`."""
        self._kept = await asyncio.to_thread(self.measure)

    def all(self) -> Iterator[tuple[str, Path]]:
        """Yield all files with their owners. Raise `OSError`."""
        for directory in self._directory.glob(f"{OWNER_PREFIX}*"):
            try:
                owner = urlsafe_b64decode(directory.name.removeprefix(OWNER_PREFIX)).decode()
            except ValueError:
                continue  # not a directory of this server
            for path in directory.iterdir():
                yield owner, path

    def reserve(self, owner: str, size: int) -> None:
        """Count more bytes of a client. Raise `QuotaExceeded` without counting them."""
        if self._kept[owner] + size > self._max_client:
            raise QuotaExceeded(f"the files of one client may have {self._max_client} bytes in all")
        if self._kept.total() + size > self._max_total:
            raise QuotaExceeded(f"all files of this server may have {self._max_total} bytes")
        self._kept[owner] += size

    def count(self, owner: str, size: int) -> None:
        """Count bytes without a limit, such as those of results; negative if they are removed."""
        self._kept[owner] += size

    def delete(self, owner: str, path: Path) -> None:
        """Remove a file, if it is there. Raise `OSError`."""
        size = size_of(path)
        path.unlink(missing_ok=True)
        self.count(owner, -size)

    def create(self, owner: str, file_id: str) -> BinaryIO:
        """Create a file that is not complete. Raise `OSError`."""
        self._directory_of(owner).mkdir(mode=0o700, exist_ok=True)
        path = self.path(owner, f"{file_id}{PARTIAL}")
        return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")

    def publish(self, owner: str, file_id: str, file: BinaryIO) -> None:
        """Give a file that is complete its name, durably. Raise `OSError`."""
        file.flush()
        os.fsync(file.fileno())
        file.close()
        path = self.path(owner, file_id)
        path.with_name(f"{file_id}{PARTIAL}").rename(path)
        sync_directory(path.parent)

    async def open(self, owner: str, file_id: str) -> tuple[int, AsyncGenerator[bytes]]:
        """Return the size and the content of a file, in pieces. Raise `OSError`."""
        file = await asyncio.to_thread(self.path(owner, file_id).open, "rb")
        return os.fstat(file.fileno()).st_size, _pieces(file)

    def _directory_of(self, owner: str) -> Path:
        return self._directory / f"{OWNER_PREFIX}{urlsafe_b64encode(owner.encode()).decode()}"


class FileWriter:
    """Writes one new file in a thread, and makes it durable at the end. Used as a context manager."""

    def __init__(self, contents: Contents, owner: str, file_id: str, max_bytes: int) -> None:
        self._contents, self._owner, self._id = contents, owner, file_id
        self._max_bytes = max_bytes
        self._file: BinaryIO | None = None
        self._buffer = bytearray()
        self.size = 0
        """Bytes of the file so far."""

    async def __aenter__(self) -> FileWriter:
        """Create the file. Raise `QuotaExceeded` or `OSError`."""
        self._contents.reserve(self._owner, FILE_BYTES)
        try:
            self._file = await asyncio.to_thread(self._contents.create, self._owner, self._id)
        except OSError:
            self._contents.count(self._owner, -FILE_BYTES)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Remove what is not published."""
        if self._file is not None:
            await asyncio.to_thread(self._discard, self._file)
            self._contents.count(self._owner, -self.size - FILE_BYTES)

    async def write(self, data: bytes) -> None:
        """Append data. Raise `QuotaExceeded`, or `OSError` such as that of a full disk."""
        if self.size + len(data) > self._max_bytes:
            raise QuotaExceeded(f"a file may have {self._max_bytes} bytes")
        self._contents.reserve(self._owner, len(data))
        self.size += len(data)
        self._buffer += data
        if len(self._buffer) >= WRITE_BYTES:
            await self._flush()

    async def publish(self) -> None:
        """Make the file durable under its name. Raise `OSError`."""
        assert self._file is not None, "the writer is entered"
        await self._flush()
        await asyncio.to_thread(self._contents.publish, self._owner, self._id, self._file)
        self._file = None

    async def _flush(self) -> None:
        assert self._file is not None, "the writer is entered"
        data, self._buffer = self._buffer, bytearray()
        await asyncio.to_thread(self._file.write, data)

    def _discard(self, file: BinaryIO) -> None:
        with suppress(OSError):  # a full disk: what was in its buffer is not wanted
            file.close()
        self._contents.path(self._owner, f"{self._id}{PARTIAL}").unlink(missing_ok=True)


async def _pieces(file: BinaryIO) -> AsyncGenerator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, READ_BYTES):
            yield piece


def size_of(path: Path) -> int:
    """Return what is counted for a file; 0 if it is not there. Raise `OSError`."""
    try:
        return path.stat().st_size + FILE_BYTES
    except FileNotFoundError:
        return 0


def age(path: Path) -> float:
    """Return the seconds since a file was changed; 0 if it is gone. Raise `OSError`."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
